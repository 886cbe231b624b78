"""What can be declared as a node task, and what is said where it can't work."""

from __future__ import annotations

from pathlib import Path

import pytest

import oncue.testing
from oncue import JobContext, OnCue, Retry
from oncue.bridge.handoff import default_redis, read_progress
from oncue.errors import ConfigError, InvalidArguments
from tests.handoff.stage import Resized


def app_of(tmp_path: Path) -> OnCue:
    return OnCue(f"sqlite:///{tmp_path}/jobs.db")


def test_a_body_that_never_runs_needs_no_context_and_is_async(tmp_path: Path) -> None:
    app = app_of(tmp_path)

    def plain(image: str) -> None: ...

    async def with_context(ctx: JobContext, image: str) -> None: ...

    with pytest.raises(ConfigError, match="async def plain"):
        app.node_task("images")(plain)
    with pytest.raises(ConfigError, match="takes no context"):
        app.node_task("images")(with_context)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue": "a:b"}, "without ':'"),
        ({"queue": ""}, "without ':'"),
        ({"queue": "images", "redis": "http://host"}, "no Redis URL"),
        ({"queue": "images", "prefix": ""}, "prefix"),
        ({"queue": "images", "timeout": 0}, "timeout"),
    ],
)
def test_what_can_t_work_is_refused_where_it_is_declared(options: dict[str, str], said: str, tmp_path: Path) -> None:
    async def resize(image: str) -> None: ...

    with pytest.raises(ConfigError, match=said):
        app_of(tmp_path).node_task(**options)(resize)  # type: ignore[arg-type]


async def test_arguments_are_checked_when_it_is_scheduled_and_it_can_t_be_called_here(tmp_path: Path) -> None:
    app = app_of(tmp_path)

    @app.node_task("images")
    async def resize(image: str, *, width: int = 3) -> Resized:
        raise NotImplementedError

    assert resize.call("a.png").args == '{"image":"a.png","width":3}'
    with pytest.raises(InvalidArguments):
        resize.call(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"schedule it with resize\.call"):
        await resize("a.png")


async def test_no_worker_starts_that_could_not_hand_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(tmp_path)

    @app.node_task("images")
    async def resize(image: str) -> Resized:
        raise NotImplementedError

    async with app:
        await app.schedule(resize.call("a.png"))
    with pytest.raises(ConfigError, match="REDIS_URL"):
        await app.drain()
    monkeypatch.setenv("REDIS_URL", "redis://given")
    known = default_redis(None)
    assert known is not None
    assert known.dsn == "redis://given"
    known = default_redis("redis://waking?prefix=p")
    assert known is not None
    assert (known.dsn, known.prefix) == ("redis://waking", "p")


async def test_under_test_a_function_stands_in_for_node(tmp_path: Path) -> None:
    app = app_of(tmp_path)

    @app.node_task("images", retry=Retry(1))
    async def resize(image: str, width: int) -> Resized:
        raise NotImplementedError

    async with oncue.testing.run(app) as t:
        await app.schedule(resize.call("a.png", 5))
        await t.drain()
        (job,) = t.jobs(resize, state="discarded")
        assert "t.node(task, function)" in (job.error or "")
        t.node(resize, Resized)
        handle = await app.schedule(resize.call("a.png", 5))
        await t.drain()
        assert await handle.result() == Resized("a.png", 5)
    assert app.stand_ins is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("40", (0.4, "")),
        ("250", (1.0, "")),
        ("-1", (0.0, "")),
        ('"half way"', (0.0, "half way")),
        ('{"fraction":0.5,"note":"page 3"}', (0.5, "page 3")),
        ('{"page":3}', (0.0, '{"page":3}')),
        ("true", (0.0, "true")),
        ("not json", (0.0, "not json")),
    ],
)
def test_progress_of_any_form_is_read(text: str, read: tuple[float, str]) -> None:
    assert read_progress(text) == read
