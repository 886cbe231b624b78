"""What can't work is refused when it is said, with the remedy, and nothing is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from oncue import Exponential, JobContext, Limit, OnCue, Retry, RetryAfter, Scheduled, Snooze, errors
from oncue.task import Call
from tests.store.kit import HandClock


async def one(app: OnCue, call: Call[None], when: dict[str, Any]) -> None:
    await app.schedule(call, **when)


async def synchronously(app: OnCue, call: Call[None], when: dict[str, Any]) -> None:
    app.sync.schedule(call, **when)


async def many(app: OnCue, call: Call[None], when: dict[str, Any]) -> None:
    await app.schedule_many([call, Scheduled(call, **when), call])


WAYS = {"one": one, "synchronously": synchronously, "many": many}


@pytest.mark.parametrize(
    ("when", "error", "said"),
    [
        ({"at": datetime(2030, 1, 1)}, errors.NaiveDatetime, r"no time zone.*datetime.now\(UTC\)"),  # noqa: DTZ001
        ({"at": datetime(1969, 12, 31, tzinfo=UTC)}, errors.InvalidTime, "1970"),
        ({"at": datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))}, errors.InvalidTime, "9999"),
        ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, errors.InvalidTime, "not both"),
        ({"delay": -0.001}, errors.InvalidTime, "at least 0"),
        ({"delay": timedelta(days=-1)}, errors.InvalidTime, "at least 0"),
        ({"delay": float("nan")}, errors.InvalidTime, "at least 0"),
        ({"delay": float("inf")}, errors.InvalidTime, "9999"),
        ({"delay": 10**12}, errors.InvalidTime, "9999"),
        ({"delay": "2"}, errors.InvalidTime, "number of seconds or a timedelta"),
        ({"delay": True}, errors.InvalidTime, "number of seconds or a timedelta"),
        ({"max_late": -1}, errors.InvalidTime, "at least 0"),
        ({"when_late": "skip"}, errors.InvalidJob, "needs max_late"),
        ({"max_wait": 5, "key": "k"}, errors.InvalidJob, "debounce"),
        ({"on_conflict": "replace"}, errors.InvalidJob, "give key="),
        ({"while_started": "keep"}, errors.InvalidJob, "give key="),
        ({"key": ""}, errors.InvalidJob, "key is a text of 1 to 255"),
        ({"key": "x" * 256}, errors.InvalidJob, "1 to 255"),
        ({"key": 7}, errors.InvalidJob, "not 7"),
        ({"group": "a\nb"}, errors.InvalidJob, "printable"),
        ({"queue": ""}, errors.InvalidJob, "queue"),
        ({"priority": 101}, errors.InvalidJob, "-100 to 100"),
        ({"priority": 1.5}, errors.InvalidJob, "whole number"),
        ({"max_attempts": 0}, errors.InvalidJob, "from 1 to"),
        ({"metadata": {"x": object()}}, errors.InvalidJob, "JSON"),
        ({"metadata": {"x": "y" * 20_000}}, errors.PayloadTooLarge, "16,384"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
async def test_an_option_that_cannot_work_is_refused_and_nothing_is_stored(
    still: OnCue, when: dict[str, Any], error: type[Exception], said: str, way: str
) -> None:
    @still.task()
    async def work() -> None: ...

    async with still:
        with pytest.raises(error, match=said):
            await WAYS[way](still, work.call(), when)
        assert await still.jobs.list() == []


async def test_arguments_are_refused_by_the_call_itself(still: OnCue) -> None:
    @still.task(name="send")
    async def send(trial_id: str, n: int = 1) -> None: ...

    call: Any = send.call
    for args, named in [((7,), {}), ((), {}), (("a", "b"), {}), (("a",), {"colour": 1}), (("a", 1, 2), {})]:
        with pytest.raises(errors.InvalidArguments, match=r"send\(.*\) can't be scheduled: .*trial_id: str"):
            call(*args, **named)
    big = call("x" * 300_000)
    async with still:
        with pytest.raises(errors.PayloadTooLarge, match="at most 262,144"):
            await still.schedule(big)
        assert await still.jobs.list() == []


async def test_the_longest_values_that_are_allowed_are_allowed(still: OnCue) -> None:
    @still.task()
    async def send(text: str) -> int:
        return len(text)

    async with still:
        handle = await still.schedule(send.call("x" * 262_000), key="k" * 255, group="ü" * 255, priority=-100)
        await still.drain()
        assert await handle.result() == 262_000


async def test_cancel_and_reschedule_want_exactly_one_name(still: OnCue) -> None:
    async with still:
        for names in ({}, {"key": "k", "id": 1}):
            given: dict[str, Any] = names
            with pytest.raises(errors.InvalidJob, match="exactly one"):
                await still.cancel(**given)
            with pytest.raises(errors.InvalidJob, match="exactly one"):
                await still.reschedule(delay=1, **given)
        with pytest.raises(errors.NaiveDatetime):
            await still.reschedule(key="k", at=datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"priority": 200}, "priority"),
        ({"queue": ""}, "queue"),
        ({"when_late": "never"}, "when_late"),
        ({"on_retry": "never"}, "on_retry"),
        ({"concurrency": 0}, "concurrency"),
        ({"name": ""}, None),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"retention": -1}, "at least 0"),
        ({"max_late": -1}, "at least 0"),
    ],
)
def test_a_task_that_cannot_work_is_refused(still: OnCue, options: dict[str, Any], said: str | None) -> None:
    async def work() -> None: ...

    if said is None:
        assert still.task(**options)(work).name.endswith("work")
        return
    with pytest.raises((errors.ConfigError, errors.InvalidJob, errors.InvalidTime), match=said):
        still.task(**options)(work)
    assert still.tasks == {}


def test_two_tasks_of_one_name_are_refused(still: OnCue) -> None:
    @still.task(name="a", aliases=("b",))
    async def one() -> None: ...

    for name, aliases in [("a", ()), ("b", ()), ("c", ("a",)), ("c", ("b",))]:
        with pytest.raises(errors.ConfigError, match="Two tasks are named"):
            still.task(name=name, aliases=aliases)(one.function)
    assert sorted(still.tasks) == ["a", "b"]


def test_signatures_that_cannot_be_stored_are_refused(still: OnCue) -> None:
    def many(*args: int) -> None: ...

    def named(**more: int) -> None: ...

    def filled(names: list[str] = ["a"]) -> None: ...  # noqa: B006

    def context_later(n: int, ctx: JobContext) -> None: ...

    for function, said in ((many, "args"), (named, "more"), (filled, "names"), (context_later, "first parameter")):
        with pytest.raises(errors.ConfigError, match=said):
            still.task()(function)
    assert still.tasks == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(0),
        lambda: Retry(3, -1),
        lambda: Retry(3, float("nan")),
        lambda: Retry(3, True),
        lambda: Retry(3, "soon"),  # type: ignore[arg-type]
        lambda: Retry(3, 1, {ValueError: -1}),
        lambda: Retry(3, 1, {ValueError: "never"}),  # type: ignore[dict-item]
        lambda: Retry(3, 1, {int: 1}),  # type: ignore[dict-item]
        lambda: Exponential(base=-1),
        lambda: Exponential(factor=0.5),
        lambda: RetryAfter(-1),
        lambda: Snooze(float("inf")),
        lambda: Limit(0),
        lambda: Limit(1, per=0),
        lambda: Limit(1, burst=0),
        lambda: Limit(float("nan")),
    ],
)
def test_a_policy_that_cannot_work_is_refused(make: Any) -> None:
    with pytest.raises(errors.ConfigError):
        make()


async def test_a_budget_that_cannot_work_is_refused(still: OnCue, clock: HandClock) -> None:
    for limit in (0, -1, 1.5, True):
        bad: Any = limit
        with pytest.raises(errors.ConfigError, match="limit"):
            await still.drain(limit=bad)
    with pytest.raises(errors.InvalidTime):
        await still.drain(seconds=-1)
