"""The database is away: who may read is told why, and nobody is told a password."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from oncue import OnCue
from oncue.operate import Operator
from oncue.operate.tokens import ROLES
from oncue.store.postgres import PostgresStore
from oncue.testing import TestClock
from oncue.web import web_app
from tests import pg, pgfaults

KINDLY = "the database can't be reached; the log has the details"
PATHS = ("/api/me", "/api/overview", "/api/jobs", "/api/events", "/metrics")


def _client(served: Any, token: str = "", address: str = "10.0.0.7") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(served, client=(address, 9))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers)


async def test_why_the_database_is_away_is_told_to_those_who_may_read(
    pg_database: pg.Database, pg_proxy: pgfaults.Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    clock = TestClock()
    where = pg_proxy.dsn(pg_database.dsn).partition("@")[2].partition("/")[0]
    app = OnCue(f"postgresql://postgres:s3cret@{where}/{pg_database.name}", clock=clock)
    async with app:
        tokens = Operator(app, "cli:ana").tokens
        given = {role: await tokens.create(role, [role]) for role in ROLES}
        unseen, revoked = await tokens.create("unseen", ["read"]), await tokens.create("revoked", ["read"])
        served = web_app(app, worker=False)
        for token in (*given.values(), revoked):
            async with _client(served, token) as client:
                assert (await client.get("/api/me")).status_code == 200
        await tokens.revoke("revoked")
        async with _client(served, revoked) as client:
            assert (await client.get("/api/me")).status_code == 401
        # Nobody here waits for the server to come back.
        assert isinstance(app.store, PostgresStore)
        app.store.pool.patience = 0.1
        pg_proxy.refuse()
        pg_proxy.cut()

        async def told(path: str, token: str = "", **more: str) -> str:
            async with _client(served, token, **more) as client:
                answer = await client.get(path)
            assert answer.status_code == 503
            assert "s3cret" not in answer.text
            return str(answer.json().get("detail") or answer.json()["reason"])

        for path in PATHS:
            said = await told(path, given["read"])
            assert f"postgresql://postgres:***@{where}/" in said
            assert "can't be reached" in said or "the connection broke" in said
        assert where in await told("/api/jobs", address="127.0.0.1")
        for token in (given["operate"], given["schedule"], given["cron"], unseen, revoked, "oncue_guessed"):
            assert await told("/api/jobs", token) == KINDLY
        assert await told("/health/ready") == KINDLY
        clock.advance(3600)
        assert await told("/api/jobs", given["read"]) == KINDLY
    assert "s3cret" not in caplog.text
