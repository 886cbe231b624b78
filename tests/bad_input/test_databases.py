"""Databases that can't work: a clear error that names the file and the remedy, and nothing changed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from oncue import OnCue, errors
from oncue.store.sqlite import schema
from tests.databases import sqlite_of

ROOT = Path(__file__).resolve().parents[2]


def _app(path: Path, **options: float) -> OnCue:
    app = OnCue(f"sqlite:///{path}", **options)  # type: ignore[arg-type]

    @app.task(name="work")
    async def work(token: str) -> str:
        return token

    return app


async def _schedule(app: OnCue, token: str, delay: float = 3600) -> int:
    return (await app.schedule(app.tasks["work"].call(token), delay=delay)).id


def _tokens(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as conn:
        return [row[0] for row in conn.execute("SELECT json_extract(args, '$.token') FROM oncue_job ORDER BY id")]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://host/trial.db", "sqlite:////absolute/file.db"),
        ("sqlite:///", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:trial.db", "names no file"),
        ("sqlite:///:memory:", "can't survive a restart"),
        ("sqlite:///trial.db?mode=ro", "pass them to OnCue"),
        ("sqlite:///trial.db?mode", "pass them to OnCue"),
        ("sqlite:///trial#1.db", "%23"),
        ("sqlite:///trial%00.db", "NUL"),
        ("trial.db", "sqlite:///relative/file.db"),
        ("mysql://ann:secret@db/trial", "sqlite:///relative/file.db"),
        (" sqlite:///trial.db", "sqlite:///relative/file.db"),
    ],
)
def test_a_url_that_names_no_database_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        OnCue(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_percent_sign_names_what_a_url_cannot_hold(tmp_path: Path) -> None:
    async with OnCue(f"sqlite:///{tmp_path}/trial%231%20ü.db"):
        assert (tmp_path / "trial#1 ü.db").is_file()


async def test_a_relative_path_means_the_same_file_after_the_folder_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = _app(Path("jobs.db"))
    (tmp_path / "elsewhere").mkdir()
    async with app:
        monkeypatch.chdir(tmp_path / "elsewhere")
        await _schedule(app, "async")
        app.sync.schedule(app.tasks["work"].call("sync"), delay=3600)
    assert _tokens(tmp_path / "jobs.db") == ["async", "sync"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_wrong_wake_url_is_refused_at_once() -> None:
    with pytest.raises(errors.ConfigError, match=r"amqp://.*local://"):
        OnCue("sqlite:///trial.db", wake="amqp://broker")


async def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError, match=f"{tmp_path} can't be opened"):
        await _app(tmp_path).open()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "jobs.db"
    with pytest.raises(errors.StoreError, match=f"{path} can't be opened.*Does its folder exist"):
        await _app(path).open()
    with pytest.raises(errors.StoreError, match="Does its folder exist"):
        _app(path).sync.schedule(_app(path).tasks["work"].call("a"))


@pytest.mark.parametrize(
    "content", [b"These are the minutes of the meeting.\n" * 100, b"SQLite format 3\0" + b"\xff" * 8176]
)
async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "minutes.txt"
    path.write_bytes(content)
    with pytest.raises(errors.StoreCorrupt, match=f"{path} is damaged or no SQLite database.*Restore a backup"):
        await _app(path).open()
    assert path.read_bytes() == content


async def _use(app: OnCue) -> None:
    async with app:
        for number in range(300):
            await _schedule(app, str(number))
            await app.jobs.list(limit=500)


@pytest.mark.parametrize("damage", ["pages overwritten", "cut off"])
async def test_a_damaged_database_says_so_and_is_not_made_worse(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path) as app:
        for number in range(200):
            await _schedule(app, f"{number}-" + "x" * 2000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "cut off":
            file.truncate(size // 2)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
    before = path.read_bytes()
    app = _app(path)
    with pytest.raises(errors.StoreCorrupt, match=f"{path} is damaged.*Restore a backup"):
        await _use(app)
    assert path.stat().st_size >= len(before)
    with pytest.raises(errors.StoreCorrupt, match=f"{path} is damaged"):
        app.sync.schedule_many([app.tasks["work"].call(str(number)) for number in range(300)])


async def test_damage_found_by_one_of_many_that_share_a_commit_is_told_in_our_words(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waits(conn: sqlite3.Connection) -> bool:
        begun.set()
        return go_on.wait()

    def finds_damage(conn: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    async with _app(tmp_path / "jobs.db") as app:
        first = asyncio.ensure_future(sqlite_of(app).write(waits))
        await asyncio.to_thread(begun.wait)
        told = asyncio.gather(*map(sqlite_of(app).write, (finds_damage, lambda _: None)), return_exceptions=True)
        await asyncio.sleep(0)
        go_on.set()
        assert await first
        for error in await told:
            assert isinstance(error, errors.StoreError)
            assert "jobs.db" in str(error)
            assert "malformed" in str(error)


async def test_a_schema_from_a_newer_version_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path) as app:
        await _schedule(app, "old")
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE oncue_counter SET value = 99 WHERE name = 'schema'")
    told = r"version 99; this OnCue knows version \d+.*Upgrade oncue"
    with pytest.raises(errors.SchemaTooNew, match=told):
        await _app(path).open()
    with pytest.raises(errors.SchemaTooNew, match=told):
        app.sync.schedule(app.tasks["work"].call("new"))
    assert _tokens(path) == ["old"]


async def test_old_data_survives_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path) as app:
        await _schedule(app, "old")
    step = "ALTER TABLE oncue_job ADD COLUMN colour TEXT;\nUPDATE oncue_job SET colour = 'green';\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    for _ in range(2):
        async with _app(path) as app:
            assert [job.args["token"] for job in await app.jobs.list()] == ["old"]
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT colour FROM oncue_job").fetchall() == [("green",)]
        assert schema.version_of(conn) == schema.VERSION


async def test_a_migration_that_fails_leaves_the_old_schema_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path) as app:
        await _schedule(app, "old")
    step = "ALTER TABLE oncue_job ADD COLUMN colour TEXT;\nUPDATE no_such_table SET colour = 1;\n"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
        patch.setattr(schema, "VERSION", schema.VERSION + 1)
        with pytest.raises(errors.StoreError, match=f"{path}.*no_such_table"):
            await _app(path).open()
    async with _app(path) as app:
        await _schedule(app, "new")
    assert _tokens(path) == ["old", "new"]
    with closing(sqlite3.connect(path)) as conn:
        assert "colour" not in {row[1] for row in conn.execute("PRAGMA table_info(oncue_job)")}


def test_eight_processes_migrate_a_fresh_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    code = (
        "import asyncio, sys\nfrom oncue import OnCue\n"
        "app = OnCue('sqlite:///' + sys.argv[1])\n@app.task(name='work')\nasync def work(token: str) -> None: ...\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
        "async def main():\n    async with app:\n        await app.schedule(work.call(sys.argv[2]), delay=3600)\n"
        "asyncio.run(main())\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(n)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(8)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.stdout.close()
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 8
    assert sorted(_tokens(path)) == [str(n) for n in range(8)]


@contextmanager
def _locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the write lock until it is ended."""
    code = (
        "import sqlite3, sys, time\nconn = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "conn.execute('BEGIN IMMEDIATE')\nprint('locked', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield holder
    finally:
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()


async def test_a_locked_database_says_who_to_look_for_and_goes_on_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path, busy_timeout=0.05) as app:
        with _locked(path):
            calls = [asyncio.ensure_future(_schedule(app, f"refused-{n}")) for n in range(3)]
            for call in calls:
                with pytest.raises(errors.StoreBusy, match=f"{path} stayed locked.*long write transaction"):
                    await asyncio.wait_for(call, 30)
            with pytest.raises(errors.StoreBusy, match="stayed locked"):
                app.sync.schedule(app.tasks["work"].call("refused"))
            with pytest.raises(errors.StoreBusy, match="stayed locked"):
                await app.schedule_many([app.tasks["work"].call("refused")])
            assert await app.jobs.list() == []
        await asyncio.wait_for(_schedule(app, "after"), 30)
        app.sync.schedule(app.tasks["work"].call("sync after"), delay=3600)
    assert _tokens(path) == ["after", "sync after"]


async def test_a_locked_database_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with _app(path):
        pass
    app = _app(path, busy_timeout=0.05)
    with _locked(path), pytest.raises(errors.StoreBusy, match="stayed locked"):
        await app.open()
    async with app:
        await _schedule(app, "after")
    assert _tokens(path) == ["after"]


READ_ONLY = """
import asyncio, os, sys
from oncue import OnCue, errors
async def main():
    async with app:
        await app.schedule(work.call('refused'))
for url in (sys.argv[2], sys.argv[1]):
    app = OnCue('sqlite:///' + url)
    @app.task(name='work')
    async def work(token: str) -> None: ...
    if url == sys.argv[2]:  # all is imported while everything may be read
        asyncio.run(main())
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
def told(attempt):
    try:
        attempt()
    except errors.StoreReadOnly as error:
        print(error)
    else:
        print('stored!')
told(lambda: asyncio.run(main()))
told(lambda: app.sync.schedule(work.call('refused')))
"""


@pytest.mark.parametrize("what", ["file", "folder", "file and folder"])
def test_a_database_that_may_only_be_read(tmp_path: Path, what: str) -> None:
    """The child gives root's rights up, so that the permission bits bind it."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "jobs.db"
    if what != "folder":
        app = _app(path)
        app.sync.schedule(app.tasks["work"].call("old"), delay=3600)
        app.store._sync.close()  # type: ignore[attr-defined]
        path.chmod(0o444)
    folder.chmod(0o777 if what == "file" else 0o555)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o555)
    command = [sys.executable, "-c", READ_ONLY, str(path), str(tmp_path / "warm.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    for line in lines:
        assert str(path) in line
        assert "write access" in line or "may this user write there" in line, line
    assert not path.exists() or _tokens(path) == ["old"]


def test_nothing_of_a_killed_child_keeps_the_file_locked(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    app = _app(path)
    app.sync.schedule(app.tasks["work"].call("before"), delay=3600)
    with _locked(path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
        app.sync.schedule(app.tasks["work"].call("after"), delay=3600)
    assert _tokens(path) == ["before", "after"]
