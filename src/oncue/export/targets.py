"""What each target's files look like. Templates only: no YAML library in the core.

Sources: vercel.com/docs/cron-jobs, render.com/docs/blueprint-spec, docs.github.com (events that trigger workflows),
the AWS CloudFormation reference (AWS::Events::*), systemd.timer(5) and systemd.exec(5), kubernetes.io (CronJob).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from oncue.cron import Cron

from .expressions import CannotExport, eventbridge, five_fields, on_calendar

Target = Literal["vercel", "render", "github", "eventbridge", "systemd", "kubernetes"]
TARGETS: tuple[Target, ...] = get_args(Target)

_DEFAULT_PATH = "/api/cron/process-scheduled"
# The narrow sets spare every template its own quoting.
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_CURL = "curl --fail-with-body --silent --show-error --max-time 120 --request POST"
_CURL_IMAGE = "docker.io/curlimages/curl:8.11.1"
# By standard input, so that the secret is not among the arguments that every process may list.
_SHELL_CALL = "printf 'Authorization: Bearer %s' \"$CRON_SECRET\" | " + _CURL + " --header @- "


@dataclass(frozen=True, slots=True)
class _Order:
    """One export: the schedule, and where to call."""

    cron: Cron
    url: str
    path: str

    @property
    def address(self) -> str:
        return self.url + self.path


def export(
    target: Target,
    *,
    url: str,
    schedule: str = "* * * * *",
    timezone: str = "UTC",
    path: str = _DEFAULT_PATH,
) -> dict[str, str]:
    """The files that make ``target`` call OnCue on ``schedule``: {name: text}.

    ``url`` is where the application answers, such as ``https://example.com``; ``path`` is appended to it. ``timezone``
    is an IANA name; targets that know UTC only refuse any other. Raises ``CannotExport`` where the target can't keep
    the schedule or may not call the address, ``InvalidCron`` for a schedule that is none.
    """
    if target not in TARGETS:
        raise CannotExport(f"no target {target!r}. Use one of {', '.join(TARGETS)}")
    cron = _cron(schedule, timezone)
    if not _URL.fullmatch(url.rstrip("/")):
        raise CannotExport(
            f"url {url!r} is not understood. Write it as https://example.com, with no query and no user name"
        )
    if not _PATH.fullmatch(path):
        raise CannotExport(f"path {path!r} is not understood. Write it as {_DEFAULT_PATH}")
    if target in ("github", "eventbridge") and not url.startswith("https://"):
        raise CannotExport(f"url {url!r} would show the secret to everybody on the way: {target} has to call https://")
    if target in ("vercel", "render", "eventbridge") and timezone not in ("UTC", "Etc/UTC"):
        raise CannotExport(
            f"{target} keeps schedules in UTC, not in {timezone!r}. Give the UTC time, or export '* * * * *' and let "
            "OnCue's own cron keep the time zone"
        )
    return _WRITERS[target](_Order(cron, url.rstrip("/"), path))


def notes(target: Target, *, schedule: str = "* * * * *", timezone: str = "UTC") -> list[str]:
    """What a person still has to do or know for ``target``: the secret, the plan's limits. For a terminal."""
    finest = _cron(schedule, timezone).finest_interval_seconds()
    if target == "vercel":
        remarks = ["Set CRON_SECRET in the project's environment variables: Vercel sends it as the bearer, with GET."]
        if finest < 86_400:
            remarks.append("The Hobby plan deploys schedules of once a day at most; this one needs Pro or Enterprise.")
        return [*remarks, "Hobby starts anywhere within the hour. If there is a vercel.json, merge `crons` into it."]
    return _NOTES[target]


def _cron(schedule: str, timezone: str) -> Cron:
    if schedule.lstrip().lower().startswith("@every"):
        raise CannotExport(f"schedule {schedule!r} is an interval. Write a cron expression, such as '*/5 * * * *'")
    return Cron(schedule, timezone)


def _vercel(order: _Order) -> dict[str, str]:
    fields = five_fields(order.cron, "Vercel")
    if "*" not in (order.cron.spec.day.text, order.cron.spec.weekday.text):
        raise CannotExport(f"Vercel takes a day of the month or a weekday, not both, as {order.cron.expression!r} has")
    settings = {
        "$schema": "https://openapi.vercel.sh/vercel.json",
        "crons": [{"path": order.path, "schedule": fields}],
    }
    return {"vercel.json": _json(settings)}


def _render(order: _Order) -> dict[str, str]:
    # curl itself reads the variable (since 8.3), so that nothing hangs on how the command is split or expanded.
    command = f"{_CURL} --variable %CRON_SECRET --expand-oauth2-bearer {{{{CRON_SECRET}}}} {order.address}"
    return {
        "render.yaml": f"""\
# Times are UTC. Render asks for CRON_SECRET when the blueprint is first synced.
services:
  - type: cron
    name: oncue-cron
    runtime: image
    image:
      url: {_CURL_IMAGE}
    plan: starter
    schedule: {json.dumps(five_fields(order.cron, "Render"))}
    dockerCommand: {json.dumps(command)}
    envVars:
      - key: CRON_SECRET
        sync: false
"""
    }


def _github(order: _Order) -> dict[str, str]:
    fields = five_fields(order.cron, "GitHub Actions")
    if (finest := order.cron.finest_interval_seconds()) < 300:
        raise CannotExport(
            f"{order.cron.expression!r} fires every {finest:g} s, but GitHub Actions starts at most "
            "every 5 minutes, often later. Use '*/5 * * * *', or another target"
        )
    timezone = "" if order.cron.timezone == "UTC" else f"\n      timezone: {json.dumps(order.cron.timezone)}"
    return {
        ".github/workflows/oncue-cron.yml": f"""\
# Scheduled workflows run from the default branch, start late when GitHub is busy, and stop after 60 days without
# activity in a public repository. The secret: repository settings, Secrets and variables, Actions, CRON_SECRET.
name: OnCue cron
on:
  schedule:
    - cron: {json.dumps(fields)}{timezone}
  workflow_dispatch:
permissions: {{}}
concurrency:
  group: oncue-cron
  cancel-in-progress: false
jobs:
  process-scheduled:
    runs-on: ubuntu-latest
    timeout-minutes: 5
    steps:
      - name: Process scheduled work
        env:
          CRON_SECRET: ${{{{ secrets.CRON_SECRET }}}}
        run: |
          {_SHELL_CALL}{order.address}
"""
    }


def _eventbridge(order: _Order) -> dict[str, str]:
    bearer = "Bearer {{resolve:secretsmanager:${CronSecretName}:SecretString}}"
    destination = {"Fn::GetAtt": ["Destination", "Arn"]}
    resources = {
        "Connection": _resource(
            "Connection",
            AuthorizationType="API_KEY",
            AuthParameters={
                "ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": {"Fn::Sub": bearer}}
            },
        ),
        "Destination": _resource(
            "ApiDestination",
            ConnectionArn={"Fn::GetAtt": ["Connection", "Arn"]},
            HttpMethod="POST",
            InvocationEndpoint=order.address,
            InvocationRateLimitPerSecond=1,
        ),
        "Role": _invoke_role(destination),
        "Rule": _resource(
            "Rule",
            ScheduleExpression=eventbridge(order.cron),
            State="ENABLED",
            Targets=[
                {
                    "Id": "oncue",
                    "Arn": destination,
                    "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Input": "{}",
                    # A call that took too long still did its work, and the next one is near.
                    "RetryPolicy": {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
                }
            ],
        ),
    }
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Calls OnCue on a schedule. Times are UTC.",
        "Parameters": {
            "CronSecretName": {
                "Type": "String",
                "Default": "CRON_SECRET",
                "Description": "Name of the Secrets Manager secret whose plain text is CRON_SECRET",
            }
        },
        "Resources": resources,
    }
    return {"oncue-cron.cloudformation.json": _json(template)}


def _resource(kind: str, **properties: object) -> dict[str, object]:
    return {"Type": f"AWS::Events::{kind}", "Properties": properties}


def _invoke_role(destination: object) -> dict[str, object]:
    def policy(**statement: object) -> dict[str, object]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

    may_assume = policy(Principal={"Service": "events.amazonaws.com"}, Action="sts:AssumeRole")
    may_invoke = policy(Action="events:InvokeApiDestination", Resource=destination)
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": may_assume,
            "Policies": [{"PolicyName": "invoke", "PolicyDocument": may_invoke}],
        },
    }


def _systemd(order: _Order) -> dict[str, str]:
    calendar = "\n".join(f"OnCalendar={event}" for event in on_calendar(order.cron))
    accuracy = "1s" if order.cron.finest_interval_seconds() >= 60 else "10ms"
    return {
        "oncue-cron.service": f"""\
# Needs systemd 250 or newer. The secret: /etc/oncue/cron-secret, one line, mode 0600, owner root.
[Unit]
Description=OnCue: process scheduled work
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
DynamicUser=yes
LoadCredential=cron-secret:/etc/oncue/cron-secret
ExecStart=/bin/sh -c '{{ printf "Authorization: Bearer "; cat %d/cron-secret; }} | {_CURL} --header @- {order.address}'
""",
        "oncue-cron.timer": f"""\
[Unit]
Description=OnCue: when to process scheduled work

[Timer]
{calendar}
AccuracySec={accuracy}
Persistent=true

[Install]
WantedBy=timers.target
""",
    }


def _kubernetes(order: _Order) -> dict[str, str]:
    zone = "Etc/UTC" if order.cron.timezone == "UTC" else order.cron.timezone
    return {
        "oncue-cron.yaml": f"""\
# The secret: kubectl create secret generic oncue-cron --from-literal=CRON_SECRET=...
apiVersion: batch/v1
kind: CronJob
metadata:
  name: oncue-cron
spec:
  schedule: {json.dumps(five_fields(order.cron, "Kubernetes"))}
  timeZone: {json.dumps(zone)}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 60
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 0
      activeDeadlineSeconds: 180
      template:
        spec:
          restartPolicy: Never
          automountServiceAccountToken: false
          securityContext:
            runAsNonRoot: true
            runAsUser: 65534
            seccompProfile:
              type: RuntimeDefault
          containers:
            - name: curl
              image: {_CURL_IMAGE}
              command: ["/bin/sh", "-c"]
              args:
                - {json.dumps(_SHELL_CALL + order.address)}
              env:
                - name: CRON_SECRET
                  valueFrom:
                    secretKeyRef:
                      name: oncue-cron
                      key: CRON_SECRET
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop: ["ALL"]
"""
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


_WRITERS: dict[Target, Callable[[_Order], dict[str, str]]] = {
    "vercel": _vercel,
    "render": _render,
    "github": _github,
    "eventbridge": _eventbridge,
    "systemd": _systemd,
    "kubernetes": _kubernetes,
}
_NOTES: dict[Target, list[str]] = {
    "render": ["Render asks for CRON_SECRET when the blueprint is first synced. Times are UTC; one run at a time."],
    "github": ["Add the repository secret CRON_SECRET. GitHub starts late when it is busy: no pulse for precise work."],
    "eventbridge": [
        "Create a Secrets Manager secret CRON_SECRET of plain text, then deploy the template with CAPABILITY_IAM.",
        "EventBridge hangs up after 5 seconds: give the endpoint a time budget below that.",
    ],
    "systemd": [
        "Put the secret in /etc/oncue/cron-secret (mode 0600), both files in /etc/systemd/system,",
        "then run: systemctl daemon-reload && systemctl enable --now oncue-cron.timer",
    ],
    "kubernetes": ["kubectl create secret generic oncue-cron --from-literal=CRON_SECRET=..., then kubectl apply."],
}
