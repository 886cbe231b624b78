"""A server that can't work does not start; one without a worker tells of that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.alerts import Alert, Workers
from oncue.web import web_app
from tests.web.conftest import SECRET, serving


def test_a_database_that_cannot_be_used_fails_the_servers_start(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/no/such/folder/jobs.db")
    with pytest.raises(RuntimeError, match="did not start"), serving(web_app(app, secret=SECRET)):
        raise AssertionError("must not begin")


async def test_a_server_without_a_worker_tells_that_none_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.alerts.EVERY", 0.01)
    told: asyncio.Queue[Alert] = asyncio.Queue()
    app = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}", alerts=[Workers(to=told.put)])
    web = web_app(app, worker=False)
    async with web.router.lifespan_context(web):
        async with asyncio.timeout(20):
            alert = await told.get()
        assert (alert.state, alert.found) == ("firing", "0 workers are alive, and there should be 1 at least")
        async with app.worker(), asyncio.timeout(20):
            assert (await told.get()).state == "recovered"
