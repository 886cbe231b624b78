"""The roles of docs/how-to/postgresql.md, with the SQL as it stands there: each can do its part, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from oncue import OnCue, Scheduled
from oncue.errors import StoreError, StoreUnavailable
from tests.docs.snippets import ROOT, read
from tests.postgres.conftest import Base

FILES = {block.argument: block.text for block in read(ROOT / "docs" / "how-to" / "postgresql.md")}


@pytest.fixture
async def urls(base: Base, role: Callable[[], str]) -> dict[str, str]:
    """The URL of each role, after what the page says was done. Roles belong to the server, so they have other names."""
    names = {name: role() for name in ("oncue_owner", "app_worker", "app_web")}

    def page(name: str) -> str:
        text = FILES[name]
        for shown, made in names.items():
            text = text.replace(shown, made)
        return "\n".join(line for line in text.splitlines() if not line.startswith("CREATE ROLE"))

    base.run(page("owner.sql"))
    found = {name: f"{base.url_of(made)}?schema=cue" for name, made in names.items()}
    async with OnCue(found["oncue_owner"]):
        pass
    base.run(page("roles.sql"))
    return found


async def test_one_role_schedules_and_another_runs(base: Base, urls: dict[str, str]) -> None:
    web, back = OnCue(urls["app_web"]), OnCue(urls["app_worker"])

    @web.task(name="greet")
    async def call(name: str) -> str:
        raise AssertionError("never here")

    @back.task(name="greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with web, back.worker():
        handle = await web.schedule(call.call("Ana"), key="k", group="g")
        row = await asyncio.wait_for(back.results.wait(handle.id), 20)
        assert (row is not None and row.result) == "hello Ana"
        with pytest.raises(StoreError, match=r"permission denied for table oncue_finished"):
            await handle.result(timeout=20)
        later = await web.schedule(call.call("Bo"), key="k2", group="g", delay=3600)
        await web.schedule(call.call("Cy"), key="k2", delay=3600, on_conflict="replace")
        await web.schedule_many([Scheduled(call.call("Dee"), delay=3600)])
        assert await web.reschedule(key="k2", delay=7200)
        assert await web.cancel(key="k2") == "prevented"
        assert await web.cancel(id=later.id) == "too late"
        await back.service(worker=False).sweep()
    assert base.value("SELECT count(*) FROM cue.oncue_finished") == 2


@pytest.mark.parametrize("name", ["app_worker", "app_web"])
async def test_none_but_the_owner_changes_tables(urls: dict[str, str], name: str, base: Base) -> None:
    app = OnCue(urls[name])
    async with app:
        for text in (
            "CREATE TABLE cue.extra (a int)",
            "ALTER TABLE cue.oncue_job ADD COLUMN extra int",
            "DROP TABLE cue.oncue_finished",
            "CREATE TABLE public.extra (a int)",
        ):
            if "public" in text and base.value("SELECT current_setting('server_version_num')::int") < 150000:  # type: ignore[operator]
                continue
            with pytest.raises(StoreError, match=r"permission denied|must be owner"):
                await app.store.fetch(text)  # type: ignore[attr-defined]
    assert base.value("SELECT count(*) FROM pg_tables WHERE tablename = 'extra'") == 0


async def test_a_roles_limit_of_connections_is_named_with_what_raises_it(base: Base, urls: dict[str, str]) -> None:
    name = urlsplit(urls["app_web"]).username
    base.run(f"ALTER ROLE {name} CONNECTION LIMIT 0")
    app = OnCue(urls["app_web"], busy_timeout=0.1)
    with pytest.raises(StoreUnavailable, match=rf'nothing was written.* ALTER ROLE "{name}" CONNECTION LIMIT raises'):
        await app.open()


async def test_who_only_schedules_reads_neither_history_nor_workers(urls: dict[str, str]) -> None:
    app = OnCue(urls["app_web"])
    role = urlsplit(urls["app_web"]).username
    async with app:
        for table in ("oncue_finished", "oncue_finished_rest", "oncue_attempt", "oncue_worker", "oncue_schedule"):
            refused = rf"role {role} may not do that \(permission denied for table {table}\)\. GRANT what docs/"
            with pytest.raises(StoreError, match=refused):
                await app.store.fetch(f"SELECT * FROM cue.{table}")  # type: ignore[attr-defined]
