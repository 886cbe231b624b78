"""Exported configurations against the schemas of their targets, in our own words for the part that we write."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from oncue.export import Target, export

URL = "https://trial.example.com"
FIVE_FIELDS = r"^[0-9*/,-]+( [0-9*/,-]+){4}$"


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of an object that has exactly these members, all of them unless `required` says else."""
    required = more.pop("required", list(properties))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
CRON = {"type": "string", "pattern": FIVE_FIELDS}
GET_ATT = closed({"Fn::GetAtt": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}})
BEARER = {"const": "Bearer {{resolve:secretsmanager:${CronSecretName}:SecretString}}"}


def aws(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    return closed({"Type": {"const": kind}, "Properties": closed(properties)})


# Our own words for the part of each target's schema that we write.
SCHEMAS: dict[Target, dict[str, Any]] = {
    "vercel": closed(
        {
            "$schema": {"const": "https://openapi.vercel.sh/vercel.json"},
            "crons": several(closed({"path": {"type": "string", "pattern": "^/", "maxLength": 512}, "schedule": CRON})),
        }
    ),
    "render": closed(
        {
            "services": several(
                closed(
                    {
                        "type": {"const": "cron"},
                        "name": TEXT,
                        "runtime": {"enum": ["image", "docker", "python", "node"]},
                        "image": closed({"url": TEXT}),
                        "plan": {"enum": ["starter", "standard", "pro"]},
                        "schedule": CRON,
                        "dockerCommand": TEXT,
                        "envVars": several(closed({"key": TEXT, "sync": {"const": False}})),
                    }
                )
            )
        }
    ),
    "github": closed(
        {
            "name": TEXT,
            "on": closed(
                {
                    "schedule": several(closed({"cron": CRON, "timezone": TEXT}, required=["cron"])),
                    "workflow_dispatch": {"type": "null"},
                }
            ),
            "permissions": closed({}),
            "concurrency": closed({"group": TEXT, "cancel-in-progress": {"type": "boolean"}}),
            "jobs": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"},
                "additionalProperties": closed(
                    {
                        "runs-on": {"const": "ubuntu-latest"},
                        "timeout-minutes": {"type": "integer", "minimum": 1},
                        "steps": several(
                            closed(
                                {
                                    "name": TEXT,
                                    "env": closed({"CRON_SECRET": {"const": "${{ secrets.CRON_SECRET }}"}}),
                                    "run": TEXT,
                                }
                            )
                        ),
                    }
                ),
            },
        }
    ),
    "eventbridge": closed(
        {
            "AWSTemplateFormatVersion": {"const": "2010-09-09"},
            "Description": TEXT,
            "Parameters": closed(
                {"CronSecretName": closed({"Type": {"const": "String"}, "Default": TEXT, "Description": TEXT})}
            ),
            "Resources": closed(
                {
                    "Connection": aws(
                        "AWS::Events::Connection",
                        {
                            "AuthorizationType": {"enum": ["API_KEY", "BASIC", "OAUTH_CLIENT_CREDENTIALS"]},
                            "AuthParameters": closed(
                                {
                                    "ApiKeyAuthParameters": closed(
                                        {
                                            "ApiKeyName": {"const": "Authorization"},
                                            "ApiKeyValue": closed({"Fn::Sub": BEARER}),
                                        }
                                    )
                                }
                            ),
                        },
                    ),
                    "Destination": aws(
                        "AWS::Events::ApiDestination",
                        {
                            "ConnectionArn": GET_ATT,
                            "HttpMethod": {"enum": ["GET", "POST"]},
                            "InvocationEndpoint": {"type": "string", "pattern": "^https://"},
                            "InvocationRateLimitPerSecond": {"type": "integer", "minimum": 1},
                        },
                    ),
                    "Role": aws(
                        "AWS::IAM::Role",
                        {
                            "AssumeRolePolicyDocument": {"type": "object", "required": ["Version", "Statement"]},
                            "Policies": several(closed({"PolicyName": TEXT, "PolicyDocument": {"type": "object"}})),
                        },
                    ),
                    "Rule": aws(
                        "AWS::Events::Rule",
                        {
                            "ScheduleExpression": {
                                "type": "string",
                                "pattern": r"^cron\(\S+( \S+){5}\)$",
                                "maxLength": 256,
                            },
                            "State": {"enum": ["ENABLED", "DISABLED"]},
                            "Targets": several(
                                closed(
                                    {
                                        "Id": TEXT,
                                        "Arn": GET_ATT,
                                        "RoleArn": GET_ATT,
                                        "Input": TEXT,
                                        "RetryPolicy": closed(
                                            {
                                                "MaximumRetryAttempts": {
                                                    "type": "integer",
                                                    "minimum": 0,
                                                    "maximum": 185,
                                                },
                                                "MaximumEventAgeInSeconds": {
                                                    "type": "integer",
                                                    "minimum": 60,
                                                    "maximum": 86400,
                                                },
                                            }
                                        ),
                                    }
                                )
                            ),
                        },
                    ),
                }
            ),
        }
    ),
    "kubernetes": closed(
        {
            "apiVersion": {"const": "batch/v1"},
            "kind": {"const": "CronJob"},
            "metadata": closed(
                {"name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 52}}
            ),
            "spec": closed(
                {
                    "schedule": CRON,
                    "timeZone": {"type": "string", "pattern": "^[A-Z][A-Za-z_]+/"},
                    "concurrencyPolicy": {"enum": ["Allow", "Forbid", "Replace"]},
                    # Below 10 seconds the controller may miss a start.
                    "startingDeadlineSeconds": {"type": "integer", "minimum": 10},
                    "successfulJobsHistoryLimit": {"type": "integer", "minimum": 0},
                    "failedJobsHistoryLimit": {"type": "integer", "minimum": 0},
                    "jobTemplate": closed(
                        {
                            "spec": closed(
                                {
                                    "backoffLimit": {"type": "integer", "minimum": 0},
                                    "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                                    "template": closed(
                                        {
                                            "spec": closed(
                                                {
                                                    "restartPolicy": {"enum": ["Never", "OnFailure"]},
                                                    "automountServiceAccountToken": {"type": "boolean"},
                                                    "securityContext": {"type": "object"},
                                                    "containers": several(
                                                        closed(
                                                            {
                                                                "name": TEXT,
                                                                "image": TEXT,
                                                                "command": several(TEXT),
                                                                "args": several(TEXT),
                                                                "env": several(
                                                                    closed(
                                                                        {
                                                                            "name": TEXT,
                                                                            "valueFrom": closed(
                                                                                {
                                                                                    "secretKeyRef": closed(
                                                                                        {"name": TEXT, "key": TEXT}
                                                                                    )
                                                                                }
                                                                            ),
                                                                        }
                                                                    )
                                                                ),
                                                                "securityContext": {"type": "object"},
                                                            }
                                                        )
                                                    ),
                                                }
                                            )
                                        }
                                    ),
                                }
                            )
                        }
                    ),
                }
            ),
        }
    ),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans, as all these targets read them: `on` is a word."""


_Loader.yaml_implicit_resolvers = copy.deepcopy(yaml.SafeLoader.yaml_implicit_resolvers)
for _letter in "oOyYnN":
    _Loader.yaml_implicit_resolvers[_letter] = [
        (tag, form) for tag, form in _Loader.yaml_implicit_resolvers.get(_letter, []) if not tag.endswith(":bool")
    ]


def read(target: Target, **options: str) -> Any:
    """The one document that a target other than systemd consists of."""
    ((name, text),) = export(target, url=URL, **({"schedule": "*/5 * * * *"} | options)).items()
    return json.loads(text) if name.endswith(".json") else yaml.load(text, _Loader)


@pytest.mark.parametrize("target", list(SCHEMAS))
def test_fits_the_schema_of_its_target(target: Target) -> None:
    jsonschema.validate(read(target), SCHEMAS[target])


def test_the_schemas_would_notice() -> None:
    """With a member of the document left out, its schema refuses it."""
    spots: list[tuple[Target, list[Any]]] = [
        ("vercel", ["crons", 0, "schedule"]),
        ("render", ["services", 0, "envVars"]),
        ("github", ["jobs", "process-scheduled", "runs-on"]),
        ("eventbridge", ["Resources", "Rule", "Properties", "Targets", 0, "RoleArn"]),
        ("kubernetes", ["spec", "jobTemplate", "spec", "template", "spec", "restartPolicy"]),
    ]
    for target, place in spots:
        document = read(target)
        *parents, member = place
        holder = document
        for key in parents:
            holder = holder[key]
        del holder[member]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, SCHEMAS[target])


def test_time_zones_where_the_target_has_them() -> None:
    zone = {"schedule": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}
    assert read("kubernetes", **zone)["spec"]["timeZone"] == "Europe/Berlin"
    assert read("kubernetes")["spec"]["timeZone"] == "Etc/UTC"
    assert read("github", **zone)["on"]["schedule"] == [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}]
    assert read("github")["on"]["schedule"] == [{"cron": "*/5 * * * *"}]
    assert (
        "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 09:00:00 Europe/Berlin\n"
        in export("systemd", url=URL, **zone)["oncue-cron.timer"]
    )
