"""Exported configurations: of the target's shape, of the same meaning, and calling what they should call."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from oncue.cron import Cron, InvalidCron
from oncue.errors import ConfigError
from oncue.export import TARGETS, CannotExport, Target, export, notes
from oncue.export.expressions import eventbridge, five_fields, on_calendar

URL = "https://trial.example.com"
PATH = "/api/cron/process-scheduled"
START = 1_767_225_600_000_000


@pytest.mark.parametrize("target", TARGETS)
def test_the_secret_is_named_and_the_address_called(target: Target) -> None:
    files = export(target, url=URL + "/", schedule="*/5 * * * *")
    text = "".join(files.values())
    assert PATH in text
    # Vercel calls its own deployment, and sends the variable CRON_SECRET by itself.
    assert target == "vercel" or (URL + PATH in text and re.search("CRON_SECRET|cron-secret", text))
    assert any(re.search("CRON_SECRET|cron-secret", note) for note in notes(target))


@pytest.mark.parametrize(
    ("target", "options", "parts"),
    [
        ("vercel", {"schedule": "*/10 * * * * *"}, ["every 10 s", "at most once a minute", "worker"]),
        ("render", {"schedule": "0,30 * * * * *"}, ["every 30 s", "Render"]),
        ("kubernetes", {"schedule": "* * * * * *"}, ["every 1 s", "Kubernetes"]),
        ("eventbridge", {"schedule": "*/10 * * * * *"}, ["every 10 s", "EventBridge"]),
        ("github", {"schedule": "*/10 * * * * *"}, ["every 10 s", "GitHub"]),
        ("github", {}, ["every 60 s", "every 5 minutes", "'*/5 * * * *'"]),
        ("github", {"schedule": "0,4 * * * *"}, ["every 240 s"]),
        ("kubernetes", {"schedule": "30 0 * * * *"}, ["at second 30", "whole minutes"]),
        ("vercel", {"timezone": "Europe/Berlin"}, ["UTC", "'Europe/Berlin'"]),
        ("render", {"timezone": "Europe/Berlin"}, ["UTC"]),
        ("eventbridge", {"timezone": "Europe/Berlin"}, ["UTC"]),
        ("vercel", {"schedule": "0 0 1 * MON"}, ["not both"]),
        ("eventbridge", {"schedule": "0 0 1 * MON"}, ["not both"]),
        ("eventbridge", {"schedule": "0 0 1,L * *"}, ["single L", "'1,L'"]),
        ("eventbridge", {"schedule": "0 0 LW * *"}, ["'LW'"]),
        ("eventbridge", {"schedule": "0 0 * * 5#1,5#3"}, ["'5#1,5#3'"]),
        ("kubernetes", {"schedule": "0 0 L * *"}, ["does not know L"]),
        ("github", {"schedule": "0 0 15W * *"}, ["does not know 15W"]),
        ("render", {"schedule": "0 0 * * 5#2"}, ["does not know 5#2"]),
        ("kubernetes", {"schedule": "0 0 */2 * MON"}, ["both day fields", "disagree"]),
        ("systemd", {"schedule": "0 0 LW * *"}, ["no word for LW"]),
        ("systemd", {"schedule": "0 0 15W * *"}, ["no word for 15W"]),
        ("systemd", {"schedule": "0 0 */2 * 5L"}, ["cannot join 5L"]),
        ("systemd", {"schedule": "@every 5m"}, ["interval", "'*/5 * * * *'"]),
        ("heroku", {}, ["'heroku'", "kubernetes"]),
        ("github", {"url": "http://trial.example.com"}, ["https://", "secret"]),
        ("eventbridge", {"url": "http://trial.example.com"}, ["https://"]),
        ("systemd", {"url": "trial.example.com"}, ["'trial.example.com'", "https://example.com"]),
        ("systemd", {"url": "https://a.example/$(id)"}, ["not understood"]),
        ("systemd", {"url": "https://a.example/';id;'"}, ["not understood"]),
        ("kubernetes", {"path": "api"}, ["'api'", PATH]),
        ("kubernetes", {"path": "/api?x=1\n"}, ["not understood"]),
    ],
)
def test_refused_with_the_reason(target: Target, options: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(CannotExport) as refused:
        export(target, **({"url": URL} | options))
    assert isinstance(refused.value, ConfigError)
    for part in parts:
        assert part in str(refused.value)


def test_a_bad_schedule_or_zone_is_refused_as_everywhere() -> None:
    with pytest.raises(InvalidCron, match="minute '61'"):
        export("systemd", url=URL, schedule="61 * * * *")
    with pytest.raises(InvalidCron, match="Did you mean 'Europe/Berlin'"):
        export("systemd", url=URL, timezone="Europe/Berlim")


def test_vercel_names_the_plan_that_a_schedule_needs() -> None:
    assert any("Pro or Enterprise" in note for note in notes("vercel"))
    assert not any("Pro or Enterprise" in note for note in notes("vercel", schedule="0 9 * * *"))


@pytest.mark.parametrize(
    "expression",
    [
        "@hourly",
        "*/7 22-2 * * *",
        "0 9 * * FRI-MON",
        "5/20 * 28-3 NOV-FEB *",
        "0 0 13 * FRI",
        "0 0 */5 * *",
        "0 12 * * 7",
    ],
)
def test_five_fields_mean_the_same(expression: str) -> None:
    cron = Cron(expression)
    text = five_fields(cron, "cron")
    assert re.fullmatch("[0-9*/,-]+( [0-9*/,-]+){4}", text)
    assert Cron(text).upcoming(START, 50) == cron.upcoming(START, 50)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", "cron(* * * * ? *)"),
        ("*/15 */2 * * *", "cron(0/15 0/2 * * ? *)"),
        ("0 9 * * MON-FRI", "cron(0 9 ? * MON,TUE,WED,THU,FRI *)"),
        ("0 9 * * 0", "cron(0 9 ? * SUN *)"),
        ("0 9 * * */2", "cron(0 9 ? * SUN,TUE,THU,SAT *)"),
        ("0 0 */10 */3 *", "cron(0 0 1/10 1/3 ? *)"),
        ("0 22-2 1 JAN,JUL *", "cron(0 0-2,22-23 1 1,7 ? *)"),
        ("0 0 L * *", "cron(0 0 L * ? *)"),
        ("0 0 15W * *", "cron(0 0 15W * ? *)"),
        ("0 10 * * FRIL", "cron(0 10 ? * 6L *)"),
        ("0 10 * * 0#2", "cron(0 10 ? * 1#2 *)"),
    ],
)
def test_eventbridge_counts_from_sunday_1_and_wants_a_question_mark(expression: str, expected: str) -> None:
    assert eventbridge(Cron(expression)) == expected
    assert f'"ScheduleExpression": "{expected}"' in "".join(
        export("eventbridge", url=URL, schedule=expression).values()
    )


WEEK = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
NUMBERS = r"(\*|[0-9]{2}(,[0-9]{2})*)"
DAYS = rf"-({NUMBERS}|[0-9]{{2}}\.\.[0-9]{{2}})|~01|~07/1"
ON_CALENDAR = re.compile(rf"({WEEK}(,{WEEK})* )?\*-{NUMBERS}({DAYS}) {NUMBERS}:{NUMBERS}:{NUMBERS} \S+")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["*-*-* *:*:00 UTC"]),
        ("*/20 * * * * *", ["*-*-* *:*:00,20,40 UTC"]),
        ("30 22-1 * * *", ["*-*-* 00,01,22,23:30:00 UTC"]),
        ("0 9 * * FRI-MON", ["Mon,Fri,Sat,Sun *-*-* 09:00:00 UTC"]),
        ("0 0 1,15 JAN *", ["*-01-01,15 00:00:00 UTC"]),
        ("0 0 L * *", ["*-*~01 00:00:00 UTC"]),
        ("0 0 10,L * *", ["*-*-10 00:00:00 UTC", "*-*~01 00:00:00 UTC"]),
        ("0 0 * * 5L", ["Fri *-*~07/1 00:00:00 UTC"]),
        ("0 0 * * 1#2,0#5", ["Mon *-*-08..14 00:00:00 UTC", "Sun *-*-29..31 00:00:00 UTC"]),
        ("0 0 13 * FRI", ["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
        ("0 0 */15 * FRI", ["Fri *-*-01,16,31 00:00:00 UTC"]),
    ],
)
def test_on_calendar_means_the_same(expression: str, expected: list[str]) -> None:
    """By the grammar that we keep to; and, where systemd is installed, by its own reckoning of 12 dates."""
    cron = Cron(expression)
    events = on_calendar(cron)
    assert events == expected
    assert all(ON_CALENDAR.fullmatch(event) for event in events)
    if (systemd := shutil.which("systemd-analyze")) is None:
        return
    elapses: set[str] = set()
    for event in events:
        command = [systemd, "calendar", "--iterations=12", "--base-time=2026-01-01 00:00:00 UTC", event]
        said = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"TZ": "UTC", "LC_ALL": "C"}
        ).stdout
        found = re.findall(r"(?:Next elapse|Iter\. #\d+): \w{3} (\S+ \S+) UTC", said)
        assert len(found) == 12
        elapses.update(found)
    fires = [datetime.fromtimestamp(fire // 1_000_000, UTC) for fire in cron.upcoming(START, 12)]
    assert sorted(elapses)[:12] == [fire.strftime("%Y-%m-%d %H:%M:%S") for fire in fires]


def unit(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_systemd_units(tmp_path: Path) -> None:
    files = export("systemd", url=URL)
    service, timer = unit(files["oncue-cron.service"]), unit(files["oncue-cron.timer"])
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["LoadCredential"] == "cron-secret:/etc/oncue/cron-secret"
    assert service["Service"]["ExecStart"].startswith("/bin/sh -c '")
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert timer["Timer"]["OnCalendar"] == "*-*-* *:*:00 UTC"
    assert timer["Timer"]["AccuracySec"] == "1s"
    assert "AccuracySec=10ms" in export("systemd", url=URL, schedule="*/10 * * * * *")["oncue-cron.timer"]
    if (systemd := shutil.which("systemd-analyze")) is None:
        return
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    verdict = subprocess.run(
        [systemd, "verify", "--man=no", str(tmp_path / "oncue-cron.timer"), str(tmp_path / "oncue-cron.service")],
        capture_output=True,
        text=True,
    )
    assert "oncue-cron" not in verdict.stdout + verdict.stderr


class Calls(BaseHTTPRequestHandler):
    """Answers as the endpoint does, and remembers what came."""

    seen: list[tuple[str, str, str | None]]
    secret = 's3cret "quoted" \\and $odd'

    def do_POST(self) -> None:
        bearer = self.headers.get("Authorization")
        self.seen.append((self.command, self.path, bearer))
        self.send_response(200 if bearer == f"Bearer {self.secret}" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    Calls.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def command_of(target: Target, url: str, credentials: Path) -> list[str]:
    """What the target would execute, with its own substitutions made."""
    # GitHub calls https only; nothing else of its line depends on the address.
    asked = URL if target == "github" else url
    text, *_ = export(target, url=asked, schedule="*/5 * * * *").values()
    if target == "systemd":
        head, script = unit(text)["Service"]["ExecStart"].replace("%d", str(credentials)).split(" -c '", 1)
        return [head, "-c", script.removesuffix("'")]
    document = yaml.safe_load(text)
    if target == "github":
        step = document["jobs"]["process-scheduled"]["steps"][0]
        return ["bash", "-e", "-c", step["run"].replace(URL, url)]
    if target == "kubernetes":
        container = document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        return [*container["command"], *container["args"]]
    words: list[str] = document["services"][0]["dockerCommand"].split(" ")
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"curl ([0-9]+)\.([0-9]+)", version)[0])) < (8, 3):
        # An older curl here can't read variables: do for it what the newer one in the image does.
        place = words.index("--variable")
        words[place : place + 4] = ["--oauth2-bearer", (credentials / "cron-secret").read_text().rstrip("\n")]
    return words


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: the command lines could not be tried")
@pytest.mark.parametrize("target", ["github", "kubernetes", "render", "systemd"])
@pytest.mark.parametrize("right", [True, False])
def test_the_command_calls_the_endpoint(target: Target, right: bool, endpoint: str, tmp_path: Path) -> None:
    secret = Calls.secret if right else "wrong"
    (tmp_path / "cron-secret").write_text(secret + "\n")
    ran = subprocess.run(
        command_of(target, endpoint, tmp_path), capture_output=True, text=True, env=os.environ | {"CRON_SECRET": secret}
    )
    assert Calls.seen == [("POST", PATH, f"Bearer {secret}")]
    # A refused call fails the run, so that the target shows it.
    assert (ran.returncode == 0) is right


def test_render_lets_curl_read_the_secret() -> None:
    """No shell is sure there, so nothing in the command needs one: no quotes, no $, no pipe."""
    service = yaml.safe_load(export("render", url=URL)["render.yaml"])["services"][0]
    words = service["dockerCommand"].split(" ")
    assert words[0] == "curl"
    assert words[words.index("--variable") + 1] == "%CRON_SECRET"
    assert words[words.index("--expand-oauth2-bearer") + 1] == "{{CRON_SECRET}}"
    assert words[words.index("--request") + 1] == "POST"
    assert words[-1] == URL + PATH
    assert not set("'\"$|;&\\") & set(service["dockerCommand"])
    major, minor = map(int, re.findall(r"curl:([0-9]+)\.([0-9]+)", service["image"]["url"])[0])
    assert (major, minor) >= (8, 3)
