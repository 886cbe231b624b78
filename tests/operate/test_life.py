"""What a job's life tells: who asked for it, who claimed, ran and acked it, and what operators did to it."""

from __future__ import annotations

from itertools import pairwise

from oncue import JobContext, OnCue, Retry
from oncue.clock import from_us
from oncue.job import Ack, NewJob
from oncue.operate import Filter, Operator, actions
from oncue.operate.schedule import Wish
from oncue.store import Claim
from oncue.testing import TestClock
from tests.databases import Backend
from tests.operate.conftest import claimed_elsewhere

S = 1_000_000


async def test_a_jobs_life_is_told_from_its_call_to_its_end(operator: Operator, app: OnCue, clock: TestClock) -> None:
    id = (await app.schedule(app.tasks["again"].call(), delay=10)).id
    await operator.act("run-now", id)
    await app.drain()
    clock.advance(3600)
    await app.drain()
    clock.advance(36000)
    await app.drain()
    life = await operator.job(id)
    assert [event.event for event in life.life] == [
        "scheduled", "hint", "asked", *3 * ["claimed", "started", "failed"],
    ]  # fmt: skip
    assert all(event.at <= after.at for event, after in pairwise(life.life))
    assert life.life[3].text == f"attempt 1, by worker {life.life[3].worker}"
    assert life.why == "all 3 attempts failed"
    assert life.life[-1].text.startswith("discarded after")
    assert "ValueError: not yet" in (life.life[-1].traceback or "")
    assert life.job.state == "discarded"


async def test_a_life_says_how_workers_heard_of_it_and_who_claimed_and_acked_it(
    operator: Operator, app: OnCue, clock: TestClock, backend: Backend
) -> None:
    soon = (await app.schedule(app.tasks["note"].call(), delay=2)).id
    later = (await app.schedule(app.tasks["note"].call(), delay=86_400)).id
    said = [(await operator.job(id)).life[1] for id in (soon, later)]
    assert [one.event for one in said] == ["hint", "hint"]
    if backend.is_sqlite:
        assert {one.text for one in said} == {"workers hear each commit to this file"}
    else:
        assert said[0].text == "sent to workers with its commit"
        assert said[1].text.startswith("none needed")
    clock.advance(2)
    await claimed_elsewhere(app, 1)
    running = (await operator.job(soon)).life
    assert [one.event for one in running] == ["scheduled", "hint", "claimed", "started"]
    now, worker = clock.now(), running[2].worker or 0
    await app.store.claim(Claim(worker, now, now, 60 * S, 0, [Ack(soon, 1, "completed", "completed", now, now)]))
    done = (await operator.job(soon)).life
    assert [one.event for one in done] == ["scheduled", "hint", "claimed", "started", "completed"]
    assert done[-1].text.endswith(f", acked by worker {running[2].worker}")
    assert done[2] == running[2]


async def test_a_life_remembers_when_a_job_was_due_before_it_was_moved(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    id = (await app.schedule(app.tasks["again"].call(), delay=7200)).id
    first, said = from_us(clock.now() + 7200 * S), "%Y-%m-%d %H:%M:%S.%f UTC"
    assert (await operator.job(id)).life[0].text == f"by the application, due {first:{said}}"
    await operator.act("reschedule", id, at="2035-01-01T00:00:00Z")
    await operator.act("run-now", id)
    now = from_us(clock.now())
    for _ in range(2):
        life = (await operator.job(id)).life
        assert life[0].text == f"by the application, due {first:{said}}; moved since to {now:{said}}"
        assert [one.text for one in life if one.event == "asked"] == [
            "it was moved by cli:ana, to 2035-01-01 00:00:00.000000 UTC",
            "it was asked to run now by cli:ana",
        ]
        await app.drain()
        clock.advance(3600)
        await app.drain()
    clock.advance(36_000)
    await app.drain()
    await operator.act("retry", id)
    assert (await operator.job(id)).life[0].text.startswith(f"by the application, due {first:{said}}; moved since")


async def test_a_life_says_no_start_where_there_was_none_and_no_ack_of_a_dead_worker(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    note = app.tasks["note"]
    late = [
        (await app.schedule(note.call(), max_late=1, when_late=when)).id for when in ("skip", "fail")
    ]  # fmt: skip
    clock.advance(60)
    await app.drain()
    for id, end in zip(late, ("skipped", "failed"), strict=True):
        assert [one.event for one in (await operator.job(id)).life] == ["scheduled", "hint", "claimed", end]
    id = (await app.schedule(note.call())).id
    clock.advance(1)
    await operator.act("cancel", id)
    assert [one.event for one in (await operator.job(id)).life] == ["scheduled", "hint", "asked", "cancelled"]
    clock.advance(1)
    await operator.act("retry", id)
    await claimed_elsewhere(app, 1)
    clock.advance(3600)
    await app.store.rescue(clock.now(), None)
    life = (await operator.job(id)).life
    assert [one.event for one in life][3:] == ["cancelled", "asked", "claimed", "started", "rescued", "waits"]
    assert "acked" not in life[-2].text


async def test_what_was_cancelled_between_attempts_keeps_its_error_and_tells_of_its_end(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    id = (await app.schedule(app.tasks["again"].call())).id
    await app.drain()
    clock.advance(0.001)
    counted = await operator.count("cancel", Filter(task="again"))
    await operator.act_on_many("cancel", Filter(task="again"), counted.token, counted.count, at=None, delay=None)
    found = await operator.job(id)
    assert [one.event for one in found.life][-4:] == ["started", "failed", "asked", "cancelled"]
    assert found.life[-1].text.endswith("cancelled before it ran")
    assert [(one.attempt, one.outcome) for one in found.attempts] == [(1, "retried")]
    await operator.act("retry", id)
    (first,) = (await operator.job(id)).attempts
    assert (first.outcome, first.error) == ("retried", "ValueError: not yet")
    await app.drain()
    assert [one.attempt for one in (await operator.job(id)).attempts] == [1, 2]


async def test_a_life_tells_what_was_done_to_many_that_the_job_was_among(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    async def do(action: actions.Action) -> None:
        clock.advance(1)
        one = Filter(task="fail")
        counted = await operator.count(action, one)
        await operator.act_on_many(action, one, counted.token, counted.count, at=None, delay=None)

    ids = [(await app.schedule(app.tasks["fail"].call(), delay=60)).id for _ in range(3)]
    await do("run-now")
    await app.drain()
    await do("retry")
    other = (await app.schedule(app.tasks["note"].call())).id
    await do("cancel")
    said = [one.text for one in (await operator.job(ids[0])).life if one.event == "asked"]
    assert said == [
        "it was asked to run now by cli:ana, with 2 others",
        "it was put back by cli:ana, with 2 others",
        "it was asked to be cancelled by cli:ana, with 2 others",
    ]
    assert "asked" not in {one.event for one in (await operator.job(other)).life}


async def test_what_never_ran_has_no_start(operator: Operator, app: OnCue, clock: TestClock) -> None:
    note = app.tasks["note"]
    cancelled = (await app.schedule(note.call())).id
    skipped = (await app.schedule(note.call(), max_late=1, when_late="skip")).id
    ran = (await app.schedule(note.call(), delay=60)).id
    clock.advance(60)
    await operator.act("cancel", cancelled)
    await app.drain()
    page = await operator.page(Filter(task="note"))
    started = {one.id: one.started_at is not None for one in page.items}
    assert started == {cancelled: False, skipped: False, ran: True}
    for id, was_started in started.items():
        assert ((await operator.job(id)).job.started_at is not None) is was_started


async def test_who_asked_for_a_job_by_http_stands_in_its_life_also_once_it_was_put_back(
    operator: Operator, app: OnCue
) -> None:
    made, _ = await operator.schedule(Wish(task="fail", args={"text": "x"}))
    await app.drain()
    await operator.act("retry", made.id)
    life = await operator.job(made.id)
    assert (life.job.origin, life.life[0].text.partition(",")[0]) == ("api:cli:ana", "by api:cli:ana")


async def test_what_a_schedule_or_source_made_says_so_also_once_it_was_put_back(
    backend: Backend, clock: TestClock
) -> None:
    app, seen = OnCue(backend.url, clock=clock), list[str | None]()

    @app.task(name="look", retry=Retry.never())
    async def look(ctx: JobContext) -> None:
        seen.append(ctx.origin)
        raise ValueError("broken")

    made = [("cron:night ly", "5"), ("source:trials", '["k 1",5]'), ("bullmq:bull:mail", '["q-1",5]')]
    said = ["by the schedule night ly", "by the source trials, row k 1", "by bullmq:bull:mail"]
    async with app:
        operator, now = Operator(app, "cli:ana"), app.clock.now()
        rows = [NewJob(0, "look", "{}", "default", 0, now, 1, now, origin=one, origin_ref=ref) for one, ref in made]
        ids = [row.id for row in await app.store.insert_many(rows)]
        for _ in range(3):
            await app.drain()
            for id in ids:
                await operator.act("retry", id)
            lives = [await operator.job(id) for id in ids]
            assert [(life.job.origin, life.job.origin_ref) for life in lives] == made
            assert [life.life[0].text.rpartition(", due ")[0] for life in lives] == said
        assert seen == [one for one, _ in made] * 3
        # Whatever made them may do so again; neither is in the other's way when that is put back too.
        again = [row.id for row in await app.store.insert_many(rows)]
        assert not set(again) & set(ids)
        await app.drain()
        for id in [*ids, *again]:
            await operator.act("retry", id)


async def test_each_time_a_job_is_put_back_it_has_as_many_attempts_as_at_first(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    once, thrice = [(await app.schedule(app.tasks[name].call())).id for name in ("fail", "again")]
    for turn in range(1, 4):
        for _ in range(5):
            await app.drain()
            clock.advance(36_000)
        found = [await app.jobs.get(id) for id in (once, thrice)]
        assert [(job.state, job.attempt, job.max_attempts) for job in found if job is not None] == [
            ("discarded", turn, turn), ("discarded", 3 * turn, 3 * turn),
        ]  # fmt: skip
        for id in (once, thrice):
            await operator.act("retry", id)
            await operator.act("cancel", id)
            await operator.act("retry", id)
