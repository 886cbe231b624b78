"""Tables of the first version: workers that run go on, what is stored stays, and then jobs are adopted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.clock import SystemClock
from oncue.store import Adoption, open_store
from oncue.store.postgres import schema as postgres
from oncue.store.sqlite import schema as sqlite
from oncue.store.sqlite import state
from tests import pg
from tests.databases import KINDS
from tests.store.kit import T0, job


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.db'}"
        return
    with pg.running(int(request.param.removeprefix("postgres"))).database() as made:
        yield made.dsn


async def test_a_worker_of_the_version_before_goes_on(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = OnCue(empty)

    @app.task(name="greet")
    async def greet() -> str:
        return "hello"

    with monkeypatch.context() as before:
        before.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:1])
        before.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:1])
        for module in (sqlite, state, postgres):
            before.setattr(module, "VERSION", 1)
        async with app:
            kept = await app.schedule(greet.call(), delay=3600)
            assert (await app.store.schema()).found == 1
        await app.open()
    try:
        store = open_store(empty, SystemClock())
        await store.open()
        assert (await store.schema()).found == sqlite.VERSION == postgres.VERSION
        # Of the code before only what it knew of the tables is here: its worker begins once they are new.
        async with app.worker():
            (adopted,) = await store.adopt("bull:q", [Adoption("1", 1, job())], T0)
            assert adopted is not None
            assert await store.job(kept.id) is not None
            assert await (await app.schedule(greet.call())).result(timeout=20) == "hello"
            await app.store.prune(app.clock.now(), 10)
            await store.close()
    finally:
        await app.close()
