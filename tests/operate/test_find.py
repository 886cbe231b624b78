"""Finding jobs: every filter, pages that stay whole while rows change, and searches that stop and go on."""

from __future__ import annotations

from typing import Any

import pytest

from oncue import OnCue, Snooze
from oncue.errors import InvalidJob, InvalidTime
from oncue.operate import Filter, Operator, find
from oncue.operate.shape import iso
from oncue.operate.views import Scanned
from oncue.testing import TestClock

S = 1_000_000


class Stage:
    """Jobs of every kind, by name."""

    def __init__(self, app: OnCue, clock: TestClock) -> None:
        self.app, self.clock = app, clock
        self.ids: dict[str, int] = {}

    async def add(self, name: str, task: str = "note", text: str = "", **options: object) -> int:
        handle = await self.app.schedule(self.app.tasks[task].call(text), **options)  # type: ignore[arg-type]
        self.ids[name] = handle.id
        return handle.id

    async def set(self) -> Stage:
        await self.add("done", text="hello")
        await self.add("broken", "fail", text='with "quotes"', queue="mail")
        await self.app.drain()
        self.clock.advance(100)
        await self.add("gone", delay=50)
        await self.app.cancel(id=self.ids["gone"])
        await self.add("first", key="k", group="g")
        await self.add("later", delay=900, queue="mail", text="50% off_")
        self.clock.advance(5)
        return self

    def names(self, ids: list[int]) -> list[str]:
        known = {id: name for name, id in self.ids.items()}
        return [known[id] for id in ids]


@pytest.fixture
async def stage(app: OnCue, clock: TestClock) -> Stage:
    return await Stage(app, clock).set()


async def test_each_filter_finds_what_it_says(operator: Operator, stage: Stage) -> None:
    now = stage.app.clock.now()
    cases: list[tuple[dict[str, object], list[str]]] = [
        ({}, ["later", "first", "gone", "broken", "done"]),
        ({"state": "completed"}, ["done"]),
        ({"state": "discarded"}, ["broken"]),
        ({"state": "cancelled"}, ["gone"]),
        ({"state": "scheduled"}, ["later", "first"]),
        ({"state": "due"}, ["first"]),
        ({"state": "late"}, ["first"]),
        ({"late": True}, ["first"]),
        ({"late": True, "state": "completed"}, []),
        ({"state": "running"}, []),
        ({"state": "blocked"}, []),
        ({"task": "fail"}, ["broken"]),
        ({"queue": "mail"}, ["later", "broken"]),
        ({"queue": "mail", "state": "scheduled"}, ["later"]),
        ({"key": "k"}, ["first"]),
        ({"key": "k", "state": "completed"}, []),
        ({"group": "g"}, ["first"]),
        ({"due_after": iso(now)}, ["later", "gone"]),
        ({"due_before": iso(now - 50 * S)}, ["broken", "done"]),
        ({"finished_before": iso(now - 50 * S)}, ["broken", "done"]),
        ({"finished_after": iso(now - 50 * S)}, ["gone"]),
        ({"due_before": "0100-01-01T00:00:00Z"}, []),
        ({"text": "HELLO"}, ["done"]),
        ({"text": '"quotes"'}, ["broken"]),
        ({"text": "50% off_"}, ["later"]),
        ({"text": "50x"}, []),
        ({"text": "broken with"}, ["broken"]),
    ]
    for given, names in cases:
        page = await operator.page(Filter(**given))  # type: ignore[arg-type]
        assert stage.names([job.id for job in page.items]) == names, given
        assert page.next is None


async def test_the_error_of_a_job_between_attempts_is_shown_and_found(operator: Operator, app: OnCue) -> None:
    await app.schedule(app.tasks["again"].call())
    await app.drain()
    (job,) = (await operator.page(Filter(text="not yet"))).items
    assert (job.state, job.attempt, job.error) == ("scheduled", 1, "ValueError: not yet")


async def test_of_a_job_that_snoozes_for_ever_the_first_and_the_latest_attempts_are_shown(
    operator: Operator, app: OnCue, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.operate.jobs._MOST_ATTEMPTS", 2)

    @app.task(name="look")
    async def look() -> None:
        raise Snooze(60, "nothing came")

    job = await app.schedule(look.call())
    for shown in ([1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 3, 4, 5], [1, 4, 5, 6]):
        await app.drain()
        clock.advance(60)
        assert [one.attempt for one in (await operator.job(job.id)).attempts] == shown
    life = await operator.job(job.id)
    assert [one.event for one in life.life if one.event in ("started", "more")] == ["started", "more", *["started"] * 3]
    assert [one.text for one in life.life if one.event == "more"] == ["2 more attempts, left out here"]
    assert [one.attempt for one in await app.jobs.attempts(job.id)] == [*range(1, 7)]


async def test_pages_hold_every_job_once_while_rows_change(operator: Operator, app: OnCue, clock: TestClock) -> None:
    note = app.tasks["note"]
    ids = [(await app.schedule(note.call(str(n)), delay=5)).id for n in range(7)]
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await operator.page(Filter(), cursor, 2)
        seen += [job.id for job in page.items]
        cursor = page.next
        if cursor is None:
            break
        # Between two pages one ends, another is new, and a third moves.
        await app.cancel(id=ids[len(seen) // 2])
        await app.schedule(note.call("new"), delay=5)
        await app.reschedule(id=ids[0], delay=50)
    assert seen == ids[::-1]


async def test_a_search_stops_after_a_while_and_goes_on(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_FIRST_WINDOW", 3)
    monkeypatch.setattr(find, "_LONGEST_WINDOW", 3)
    monkeypatch.setattr("oncue.operate.jobs.BUDGET", 0.0)
    ids = [(await app.schedule(app.tasks["note"].call(str(n)), delay=5)).id for n in range(8)]
    page = await operator.page(Filter(text="0"))
    assert page.items == []
    assert isinstance(page.scanned, Scanned)
    assert (page.next, page.scanned.start, page.scanned.end) == (str(ids[5]), ids[5], ids[-1])
    found, looks = [], 1
    while page.next is not None:
        page, looks = await operator.page(Filter(text="0"), page.next), looks + 1
        found += [job.id for job in page.items]
    assert (found, looks) == ([ids[0]], 3)


async def test_holes_among_the_ids_are_passed_over(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_FIRST_WINDOW", 2)
    monkeypatch.setattr(find, "_LONGEST_WINDOW", 2)
    await app.schedule(app.tasks["fail"].call("x"))
    await app.drain()
    for _ in range(30):
        await app.schedule(app.tasks["note"].call(), delay=5)
    looks: list[object] = []
    real = app.store.look

    def counted(steps: Any) -> Any:
        looks.append(steps)
        return real(steps)

    monkeypatch.setattr(app.store, "look", counted)
    page = await operator.page(Filter(state="discarded", text="broken"))
    assert len(page.items) == 1
    looks.clear()
    assert (await operator.page(Filter(state="cancelled"))).items == []
    assert len(looks) < 8


async def test_what_cannot_be_asked_is_said_so(operator: Operator) -> None:
    with pytest.raises(InvalidTime, match="'yesterday' is no time"):
        await operator.page(Filter(due_after="yesterday"))
    # Told to who wrote it in a shell or in JSON: nothing of Python's.
    with pytest.raises(InvalidTime, match="^'2030-01-01T00:00:00' has no time zone: write it as 2026-11-30T17:20:01Z"):
        await operator.page(Filter(due_after="2030-01-01T00:00:00"))
    with pytest.raises(InvalidJob, match="no cursor"):
        await operator.page(Filter(), "x")
    assert (await operator.page(Filter())).items == []


async def test_a_search_does_not_tell_what_is_hidden(app: OnCue) -> None:
    await app.schedule(app.tasks["fail"].call("+49 151 1"))
    await app.drain()
    app.redact("text")
    operator = Operator(app, "cli:ana")
    assert (await operator.page(Filter(text="151"))).items == []
    (job,) = (await operator.page(Filter(text="broken"))).items
    assert job.error == "ValueError: broken •••"
    life = await operator.job(job.id)
    assert life.job.args == {"text": "•••"}
    assert "151" not in repr(life)


async def test_nobody_can_guess_what_is_hidden_by_where_a_search_stops(
    app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.operate.jobs.BUDGET", 60.0)
    app.redact("phone")
    operator, note = Operator(app, "cli:ana"), app.tasks["note"]
    for number in range(6):
        await app.schedule(note.call(f"text {number}", phone=f"+49170{number}"), delay=5)
    for given in ({}, {"state": "scheduled"}, {"key": "k"}):
        there = [await operator.page(Filter(text="491703", **given), None, limit) for limit in (1, 5)]  # type: ignore[arg-type]
        elsewhere = [await operator.page(Filter(text="491709", **given), None, limit) for limit in (1, 5)]  # type: ignore[arg-type]
        assert there == elsewhere
        assert [page.items for page in there] == [[], []]
    assert (await operator.count("cancel", Filter(text="491703"))).count == 0
    assert (await operator.count("cancel", Filter(text="text 3"))).count == 1
    first = await operator.page(Filter(text="text"), None, 4)
    rest = await operator.page(Filter(text="text"), first.next, 4)
    assert len({job.id for job in [*first.items, *rest.items]}) == 6
