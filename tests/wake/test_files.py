"""Hearing of commits by the file that SQLite writes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from oncue.clock import SystemClock
from oncue.store import open_store
from oncue.wake import open_wake
from oncue.wake.watch import watch_file
from tests.store.kit import job
from tests.wake.conftest import Ear


def none_left(*args: object) -> None:
    raise OSError(24, "Too many open files")


async def test_where_files_cannot_be_watched_it_looks_again_and_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    store = open_store(f"sqlite:///{path}", SystemClock())
    await store.open()
    monkeypatch.setattr("oncue.wake.watch._Inotify", none_left)
    monkeypatch.setattr("oncue.wake.watch._Kqueue", none_left)
    wake, ear = open_wake(None, f"sqlite:///{path}"), Ear()
    with caplog.at_level(logging.WARNING, "oncue.wake"):
        await wake.start()
    assert wake.healthy is not None
    assert "Too many open files" in wake.healthy
    assert "looking every 50 ms" in wake.healthy
    assert wake.healthy in caplog.text
    wake.listen(ear)
    await store.insert(job())
    await ear.anything()
    await wake.close()
    await store.close()


async def test_a_watch_ends_without_leaving_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    lowest = os.dup(0)
    os.close(lowest)
    for _ in range(20):
        watch, problem = watch_file(path, lambda: None)
        assert problem is None
        watch.close()
    again = os.dup(0)
    os.close(again)
    assert again == lowest


async def test_a_watch_that_is_closed_in_the_moment_of_a_change_stays_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    heard = Ear()
    watch, _ = watch_file(path, lambda: heard(None))
    path.write_text("y")
    await heard.anything()
    watch.close()
    seen = len(heard.heard)
    path.write_text("z")
    other = Ear()
    another, _ = watch_file(path, lambda: other(None))
    path.write_text("zz")
    await other.anything()
    another.close()
    assert len(heard.heard) == seen
