"""What is handed in as connection=: the right one in any setting, or a clear refusal with nothing stored."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue, errors


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[OnCue]:
    made = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}")

    @made.task(name="work")
    async def work(token: str = "") -> None: ...

    async with made:
        yield made


async def _count(app: OnCue) -> int:
    return len(await app.jobs.list())


async def _refused(app: OnCue, connection: Any, match: str) -> None:
    call = app.tasks["work"].call()
    with pytest.raises(errors.InvalidJob, match=match):
        await app.schedule(call, connection=connection)
    with pytest.raises(errors.InvalidJob, match=match):
        app.sync.schedule_many([call], connection=connection)
    with pytest.raises(errors.InvalidJob, match=match):
        await app.cancel(key="k", connection=connection)
    with pytest.raises(errors.InvalidJob, match=match):
        await app.reschedule(key="k", delay=1, connection=connection)
    assert await _count(app) == 0


async def test_to_another_file(app: OnCue, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as conn:
        await _refused(app, conn, r"open on .*other\.db, but the jobs live in .*jobs\.db.*leave connection= out")


async def test_in_memory(app: OnCue) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        await _refused(app, conn, "open on an in-memory database, but the jobs live in")


async def test_closed(app: OnCue, tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "jobs.db")
    conn.close()
    await _refused(app, conn, r"connection= can't be used here: .*closed.*Give an open connection to .*jobs\.db")


async def test_of_another_thread(app: OnCue, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        conn = other.submit(sqlite3.connect, tmp_path / "jobs.db").result()
        await _refused(app, conn, "made in this thread")
        other.submit(conn.close).result()


@pytest.mark.parametrize("wrong", ["jobs.db", 7, object()])
async def test_of_the_wrong_type(app: OnCue, wrong: object) -> None:
    await _refused(app, wrong, f"takes a sqlite3.Connection to .*not a {type(wrong).__name__}")


async def test_to_a_file_without_tables(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'fresh.db'}")

    @app.task(name="work")
    async def work() -> None: ...

    with closing(sqlite3.connect(tmp_path / "fresh.db")) as conn:
        conn.execute("CREATE TABLE mine (x)")
        with pytest.raises(errors.InvalidJob, match=r"no OnCue tables yet.*oncue migrate"):
            app.sync.schedule(work.call(), connection=conn)


async def test_read_only(app: OnCue, tmp_path: Path) -> None:
    with closing(sqlite3.connect(f"file:{tmp_path / 'jobs.db'}?mode=ro", uri=True)) as conn:
        with pytest.raises(errors.StoreReadOnly, match=r"jobs\.db can't be written"):
            app.sync.schedule(app.tasks["work"].call(), connection=conn)
        conn.rollback()
    assert await _count(app) == 0


async def test_autocommitting_it_is_durable_at_once(app: OnCue, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as conn:
        app.sync.schedule(app.tasks["work"].call(), delay=3600, connection=conn)
        assert not conn.in_transaction
        assert await _count(app) == 1
        conn.execute("BEGIN")
        app.sync.schedule(app.tasks["work"].call(), delay=3600, connection=conn)
        conn.execute("ROLLBACK")
    assert await _count(app) == 1


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


@pytest.mark.parametrize("factory", [_as_dict, sqlite3.Row])
@pytest.mark.parametrize("text", [str, bytes])
async def test_with_rows_and_texts_of_its_own_kind(app: OnCue, tmp_path: Path, factory: Any, text: Any) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as conn:
        conn.row_factory, conn.text_factory = factory, text
        call = app.tasks["work"].call()
        first = app.sync.schedule(call, delay=3600, key="k", group="g", connection=conn)
        assert app.sync.schedule(call, key="k", connection=conn).status == "kept"
        assert app.sync.schedule(call, delay=60, key="k", on_conflict="replace", connection=conn).id == first.id
        assert app.sync.reschedule(key="k", delay=120, connection=conn)
        assert app.sync.cancel(key="k", connection=conn) == "prevented"
        assert conn.row_factory is factory
        assert conn.in_transaction
        assert await _count(app) == 0
        conn.commit()
    assert [job.state for job in await app.jobs.list()] == ["cancelled"]


async def test_a_refused_call_leaves_the_callers_transaction_whole(app: OnCue, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as conn:
        conn.execute("CREATE TABLE mine (x)")
        conn.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(errors.InvalidJob):
            app.sync.schedule(app.tasks["work"].call(), key="\0", connection=conn)
        conn.execute("PRAGMA max_page_count = 1")
        with pytest.raises(errors.StoreFull, match="No room left"):
            app.sync.schedule(app.tasks["work"].call("x" * 250_000), connection=conn)
        conn.execute("PRAGMA max_page_count = 1073741823")
        # SQLite may have ended the transaction on the full disk; if not, it is whole and goes on.
        if conn.in_transaction:
            app.sync.schedule(app.tasks["work"].call(), delay=3600, connection=conn)
            conn.commit()
            assert conn.execute("SELECT x FROM mine").fetchall() == [(1,)]
            assert await _count(app) == 1
        else:
            assert await _count(app) == 0


async def test_without_a_connection_a_full_disk_is_left_behind(app: OnCue) -> None:
    app.sync.schedule(app.tasks["work"].call(), delay=3600)
    own = app.store._sync._own  # type: ignore[attr-defined]
    own.execute("PRAGMA max_page_count = 1")
    for _ in range(2):
        with pytest.raises(errors.StoreFull, match=r"No room left for .*jobs\.db.*free space"):
            app.sync.schedule(app.tasks["work"].call("x" * 250_000), delay=3600)
    own.execute("PRAGMA max_page_count = 1073741823")
    app.sync.schedule(app.tasks["work"].call("x" * 250_000), delay=3600)
    assert await _count(app) == 2
