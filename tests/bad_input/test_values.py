"""Values that can't be stored, or hardly: a clear error before anything is stored, or they come back as they were."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oncue import Discard, OnCue, Retry, Snooze, errors

HUGE = 2**63


class Silent(Exception):
    """An error that can't even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")

    def __repr__(self) -> str:
        raise ValueError("no words")


class Rude(BaseException):
    """An error that nothing expects."""


class SilentDiscard(Discard):
    """A decision that can't say why."""

    def __str__(self) -> str:
        raise ValueError("no words")


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


RAISED = {
    "silent": Silent(),
    "rude": Rude("beyond Exception"),
    "surrogate": ValueError("half a \ud83d face"),
    "nul": ValueError("before\0after"),
    "exit": SystemExit(3),
    "discard": Discard("half a \ud83d face"),
    "silent discard": SilentDiscard(""),
    "long": ValueError("x" * 1_000_000),
    "stop": StopIteration("generator"),
}
RETURNED: dict[str, Any] = {
    "object": object(),
    "surrogate": "half a \ud83d face",
    "nul": "before\0after",
    "big": HUGE,
    "huge": 10**40,
    "nested": _nested(400),
    "too deep": _nested(100_000),
    "large": "x" * 2_000_000,
}


@pytest.fixture
def app(tmp_path: Path) -> OnCue:
    made = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}")

    @made.task(name="raises", retry=Retry.never())
    async def raises(kind: str) -> None:
        raise RAISED[kind]

    @made.task(name="raises_in_thread", retry=Retry.never())
    def raises_in_thread(kind: str) -> None:
        raise RAISED[kind]

    @made.task(name="snoozes")
    async def snoozes() -> None:
        raise Snooze(3600, "half a \ud83d face, before\0after")

    @made.task(name="returns")
    async def returns(kind: str) -> Any:
        return RETURNED[kind]

    @made.task(name="echo")
    async def echo(value: Any) -> Any:
        return value

    @made.task(name="number")
    async def number(value: float) -> float:
        return value

    @made.task(name="whole")
    async def whole(value: int) -> int:
        return value

    return made


def _stored(app: OnCue) -> int:
    path = Path(app.url.removeprefix("sqlite:///"))
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as conn:
        found: int = conn.execute("SELECT count(*) FROM oncue_job").fetchone()[0]
    return found


@pytest.mark.parametrize("task", ["raises", "raises_in_thread"])
@pytest.mark.parametrize("kind", RAISED)
async def test_whatever_a_handler_raises_is_kept_as_a_reason(app: OnCue, task: str, kind: str) -> None:
    async with app.worker():
        handle = await app.schedule(app.tasks[task].call(kind))
        with pytest.raises(errors.JobFailed, match="was discarded"):
            await handle.result(timeout=30)
        job = await app.jobs.get(handle.id)
        assert job is not None
        assert job.error is not None
        assert job.error.startswith(type(RAISED[kind]).__name__) or kind == "stop"
        assert len(job.error) <= 2000
        # The worker is none the worse for it.
        assert await (await app.schedule(app.tasks["echo"].call(1))).result(timeout=30) == 1


async def test_a_snooze_with_any_reason(app: OnCue) -> None:
    async with app.worker():
        handle = await app.schedule(app.tasks["snoozes"].call())
        assert await (await app.schedule(app.tasks["echo"].call(1), priority=100)).result(timeout=30) == 1
        while not (attempts := await app.jobs.attempts(handle.id)):
            assert await (await app.schedule(app.tasks["echo"].call(1))).result(timeout=30) == 1
    assert attempts[0].outcome == "snoozed"
    assert "half a" in (attempts[0].reason or "")


@pytest.mark.parametrize("kind", RETURNED)
async def test_a_result_comes_back_as_it_was_or_says_why_it_could_not_be_kept(app: OnCue, kind: str) -> None:
    async with app.worker():
        handle = await app.schedule(app.tasks["returns"].call(kind))
        result = await handle.result(timeout=30)
        job = await app.jobs.get(handle.id)
        assert job is not None
        assert job.state == "completed"
        if result is None:
            assert "can't be stored as JSON" in (job.reason or "") or "was not stored" in (job.reason or "")
        else:
            assert result == RETURNED[kind]
        assert len(await app.jobs.list()) == 1


VALUES = [10**40, HUGE - 1, HUGE, 2**64 - 1, -HUGE, "before\0after", "😀", {"a": [None, True, 1.5]}, _nested(400), ""]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
async def test_arguments_come_back_as_they_were(app: OnCue, value: Any) -> None:
    async with app.worker():
        handle = await app.schedule(app.tasks["echo"].call(value), metadata={"value": value})
        assert await handle.result(timeout=30) == value
        job = await app.jobs.get(handle.id)
        assert job is not None
        assert job.args == {"value": value}
        assert job.metadata == {"value": value}


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("echo", "half a \ud83d face"),
        ("echo", object()),
        ("echo", _nested(100_000)),
        ("echo", {1: {("a",): 2}}),
        ("number", float("nan")),
        ("number", float("inf")),
        ("number", "1.5"),
        ("whole", 1.5),
    ],
    ids=range(8),
)
async def test_arguments_that_cannot_be_stored_are_refused_with_task_and_reason(
    app: OnCue, task: str, value: Any
) -> None:
    with pytest.raises(
        errors.InvalidArguments, match=f"{task}\\(.*can't be scheduled: .*It takes \\(value: "
    ) as caught:
        app.tasks[task].call(value)
    assert len(str(caught.value)) < 1000


class NoRepr:
    """An argument that can't even be shown."""

    def __repr__(self) -> str:
        raise ValueError("no words")


async def test_an_argument_that_cannot_even_be_shown(app: OnCue) -> None:
    with pytest.raises(errors.InvalidArguments, match=r"echo\(.*NoRepr.*can't be scheduled"):
        app.tasks["echo"].call(NoRepr())


async def test_where_no_type_refuses_it_nan_is_stored_as_json_has_it(app: OnCue) -> None:
    """JSON knows no NaN: a parameter that is a float refuses it, one that is anything gets null, as documented."""
    assert app.tasks["echo"].call(float("nan")).args == '{"value":null}'


async def test_arguments_too_many_or_of_the_wrong_name(app: OnCue) -> None:
    for args, named in (((), {}), ((1, 2), {}), ((1,), {"other": 2})):
        with pytest.raises(errors.InvalidArguments, match=r"echo\(.*It takes \(value: "):
            app.tasks["echo"].call(*args, **named)


async def test_huge_arguments_and_metadata_are_refused_with_size_and_limit(app: OnCue) -> None:
    async with app:
        with pytest.raises(
            errors.PayloadTooLarge, match=r"echo take 300,0\d\d bytes as JSON; at most 262,144.*pass its id"
        ):
            await app.schedule(app.tasks["echo"].call("x" * 300_000))
        with pytest.raises(errors.PayloadTooLarge, match=r"metadata takes 20,0\d\d bytes.*at most 16,384"):
            await app.schedule(app.tasks["echo"].call(1), metadata={"value": "x" * 20_000})
        with pytest.raises(errors.InvalidJob, match="metadata can't be stored as JSON"):
            await app.schedule(app.tasks["echo"].call(1), metadata={"value": "half a \ud83d face"})
        with pytest.raises(errors.InvalidJob, match="metadata can't be stored as JSON"):
            await app.schedule(app.tasks["echo"].call(1), metadata={"value": _nested(100_000)})
        await app.schedule(app.tasks["echo"].call("x" * 262_000), delay=3600)
    assert _stored(app) == 1


async def test_a_list_of_jobs_takes_one_state_or_several_and_no_other_word(app: OnCue) -> None:
    async with app:
        made = await app.schedule(app.tasks["echo"].call(1), delay=3600)
        one: Any = "scheduled"
        for state in (one, [one], (one, "running")):
            assert [job.id for job in await app.jobs.list(state=state)] == [made.id]
        for wrong in ("failed", ["scheduled", "failed"]):
            with pytest.raises(errors.InvalidJob, match="state is one of 'scheduled', .*, or several, not 'failed'"):
                await app.jobs.list(state=wrong)  # type: ignore[arg-type]


NAMES = ["", "before\0after", "half a \ud83d face", "x" * 256, "line\nbreak", 7, b"bytes",
         "a\u00a0b", "zero\u200bwidth", "turned \u202e round", "\ue000", "tag \U000e0041", "\U0010fffd"]  # fmt: skip


@pytest.mark.parametrize("value", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("name", ["key", "group", "queue"])
async def test_a_name_that_cannot_be_shown_is_refused(app: OnCue, name: str, value: Any) -> None:
    async with app:
        with pytest.raises(errors.InvalidJob, match=f"{name} is a text of 1 to 255 printable characters, not"):
            await app.schedule(app.tasks["echo"].call(1), **{name: value})
    assert _stored(app) == 0


async def test_a_name_is_good_for_every_version_of_python(app: OnCue) -> None:
    # A face that Unicode 16 has, and one that it doesn't have yet: what str.isprintable says depends on the version.
    for name in ("face \U0001fae9", "face \U0001faff"):
        async with app:
            await app.schedule(app.tasks["echo"].call(1), key=name, group=name, delay=3600)
            assert [job.key for job in await app.jobs.list(key=name)] == [name]


@pytest.mark.parametrize(
    "options",
    [
        {"priority": HUGE},
        {"priority": 1.5},
        {"priority": True},
        {"max_attempts": 0},
        {"max_attempts": HUGE},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": -1},
        {"delay": 1e300},
        {"delay": "2"},
        {"max_late": float("nan")},
        {"when_late": "never", "max_late": 1},
        {"key": "k", "on_conflict": "ignore"},
        {"key": "k", "max_wait": 1},
        {"on_conflict": "replace"},
    ],
    ids=str,
)
async def test_an_option_with_an_unusable_value_is_refused(app: OnCue, options: dict[str, Any]) -> None:
    async with app:
        with pytest.raises((errors.InvalidJob, errors.InvalidTime)):
            await app.schedule(app.tasks["echo"].call(1), **options)
        with pytest.raises((errors.InvalidJob, errors.InvalidTime)):
            app.sync.schedule(app.tasks["echo"].call(1), **options)
    assert _stored(app) == 0


@pytest.mark.parametrize("id", [0, -1, HUGE, -HUGE - 1])
async def test_an_id_of_no_job(app: OnCue, id: int) -> None:
    async with app:
        assert await app.jobs.get(id) is None
        assert await app.jobs.attempts(id) == []
        for refused in (app.cancel(id=id), app.reschedule(id=id, delay=1)):
            with pytest.raises(errors.InvalidJob, match=f"id is a whole number from 1 to .*, not {id}"):
                await refused
        with pytest.raises(errors.InvalidJob, match="id is a whole number"):
            app.sync.cancel(id=id)
        with pytest.raises(errors.UnknownJob, match=str(id)):
            await app.jobs.run_now(id)
        with pytest.raises(errors.UnknownJob, match=str(id)):
            await app.jobs.retry(id)


@pytest.mark.parametrize("key", ["", "before\0after", "half a \ud83d face"], ids=range(3))
async def test_a_key_of_no_job(app: OnCue, key: str) -> None:
    async with app:
        for refused in (app.cancel(key=key), app.reschedule(key=key, delay=1), app.jobs.list(key=key)):
            with pytest.raises(errors.InvalidJob, match="key is a text of 1 to 255 printable characters"):
                await refused
        with pytest.raises(errors.InvalidJob, match="key is a text"):
            app.sync.cancel(key=key)


async def test_no_call_at_all(app: OnCue) -> None:
    async with app:
        for wrong in (None, "echo", app.tasks["echo"], lambda: None):
            with pytest.raises(errors.InvalidJob, match=r"is a call, such as send\.call"):
                await app.schedule(wrong)  # type: ignore[arg-type]


async def test_used_before_it_is_open_and_after_it_is_closed(app: OnCue) -> None:
    for _ in range(2):
        with pytest.raises(errors.OnCueError, match="not open: use `async with app:`"):
            await app.schedule(app.tasks["echo"].call(1))
        with pytest.raises(errors.OnCueError, match="not open: use `async with app:`"):
            await app.jobs.get(1)
        async with app:
            await app.schedule(app.tasks["echo"].call(1), delay=3600)
    assert _stored(app) == 2
    # One close too many changes nothing.
    await app.close()
    async with app:
        await app.schedule(app.tasks["echo"].call(1), delay=3600)
    with pytest.raises(errors.OnCueError, match="not open"):
        await app.schedule(app.tasks["echo"].call(1))
    app.sync.schedule(app.tasks["echo"].call(1), delay=3600)
    assert _stored(app) == 4
