"""Redis in operation: what the doctor says, the least rights of a user, a cluster's hash tags."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.errors import ConfigError
from oncue.redis_link import ask, client
from oncue.redis_url import parse_redis
from tests.redis.conftest import Make, on_each_kind
from tests.valkey import VALKEY, Server

APP = "from oncue import OnCue\napp = OnCue('sqlite:///jobs.db', wake={wake!r})\n"


def doctor(folder: Path, wake: str) -> dict[str, dict[str, str]]:
    (folder / "trial.py").write_text(APP.format(wake=wake))
    command = [sys.executable, "-m", "oncue"]
    subprocess.run([*command, "migrate", "--database", "sqlite:///jobs.db"], cwd=folder, check=True)
    done = subprocess.run([*command, "doctor", "--json", "trial:app"], cwd=folder, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


@on_each_kind
def test_the_doctor_proves_a_delivery_to_ourselves_and_leaves_nothing(tmp_path: Path, server: Server) -> None:
    found = doctor(tmp_path, server.url)
    assert (found["redis"]["state"], found["wake"]["state"]) == ("ok", "ok"), found
    with server.client() as link:
        assert link.keys("*doctor*") == []


def test_the_doctor_says_that_redis_is_down_and_what_happens_instead(tmp_path: Path, server: Server) -> None:
    server.kill()
    found = doctor(tmp_path, f"redis://:hidden-word@127.0.0.1:{server.port}")
    assert found["redis"]["state"] == found["wake"]["state"] == "warn"
    assert "jobs start by the workers' own timers" in found["redis"]["found"]
    assert "hidden-word" not in str(found)


async def test_a_user_without_rights_is_named_as_the_trouble(make: Make, server: Server) -> None:
    with server.client() as link:
        link.execute_command("ACL", "SETUSER", "cue", "on", ">pass", "~other:*", "+@all", "-info")
    stage = make(url=f"redis://cue:pass@127.0.0.1:{server.port}")
    async with stage.app.worker():
        await stage.schedule(range(3), 0.05)
        await stage.once_each(3)
        await stage.until(lambda: "info" in (stage.wake.healthy or ""))


async def test_on_a_cluster_a_queue_needs_a_hash_tag(make: Make) -> None:
    with Server(VALKEY, settings=["cluster-enabled yes"]) as node:
        with node.client() as link:
            link.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in link.execute_command("CLUSTER", "INFO"):
                pass
        plain = client(parse_redis(node.url))
        with pytest.raises(ConfigError, match=r"prefix=%7Bbull%7D \(which is \{bull\}\)"):
            await ask(plain, parse_redis(node.url))
        await plain.aclose()
        stage = make("timers=off&prefix=%7Boncue%7D", url=node.url)
        async with stage.app.worker():
            await stage.until_healthy()
            await stage.schedule(range(10), 0.2, 0.02)
            await stage.once_each(10)
            with node.client() as link:
                assert all(key.startswith(b"{oncue}:oncue:") for key in link.keys("*"))


def test_redis_as_a_wake_queue_is_said_and_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform sets REDIS_URL for a cache, too."""
    monkeypatch.setenv("REDIS_URL", "redis://cache")
    assert OnCue("sqlite:///x.db").wake.carrier is None
