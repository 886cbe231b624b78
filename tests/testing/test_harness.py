"""The kit as its users use it: an application declared elsewhere, put under test without a change."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

import oncue.testing
from oncue import Exponential, JobContext, OnCue, Retry, Snooze
from oncue.clock import from_us
from oncue.errors import ConfigError, InvalidTime, UnknownTask

app = OnCue("sqlite:////nowhere/production.db")
sent: list[tuple[str, str, datetime]] = []
BERLIN = ZoneInfo("Europe/Berlin")


@app.task(name="send_reminder")
async def send_reminder(ctx: JobContext, trial_id: str) -> None:
    sent.append(("reminder", trial_id, from_us(app.clock.now())))


@app.task(name="send_question")
async def send_question(trial_id: str, number: int = 1) -> None:
    sent.append(("question", trial_id, from_us(app.clock.now())))
    await app.schedule(
        send_reminder.call(trial_id), delay=timedelta(hours=2), key=f"reminder-{trial_id}", on_conflict="replace"
    )


async def reply(trial_id: str) -> None:
    await app.cancel(key=f"reminder-{trial_id}")
    await app.schedule(send_question.call(trial_id, 2), delay=5, key=f"question-{trial_id}", group=f"trial-{trial_id}")


@pytest.fixture
async def t() -> AsyncIterator[oncue.testing.Harness]:
    sent.clear()
    async with oncue.testing.run(app) as harness:
        yield harness


async def test_a_reminder_goes_out_after_two_hours(t: oncue.testing.Harness) -> None:
    began = t.now
    await app.schedule(send_question.call("t-1"))
    await t.drain()
    t.assert_scheduled(send_reminder, key="reminder-t-1", at=began + timedelta(hours=2), args=("t-1",))
    await t.advance(hours=1, minutes=59, seconds=59)
    assert not t.completed(send_reminder)
    done = await t.advance(1)
    assert done.ran == 1
    assert sent == [("question", "t-1", began), ("reminder", "t-1", began + timedelta(hours=2))]
    assert t.now == began + timedelta(hours=2)
    [job] = t.completed(send_reminder, key="reminder-t-1")
    assert from_us(job.scheduled_at) == began + timedelta(hours=2)


async def test_a_reply_cancels_the_reminder(t: oncue.testing.Harness) -> None:
    await app.schedule(send_question.call("t-1"))
    await t.advance(hours=1)
    await reply("t-1")
    t.assert_not_scheduled(send_reminder)
    t.assert_scheduled(send_question.call("t-1", 2), delay=5, group="trial-t-1")
    await t.advance(hours=1, minutes=30)
    assert [kind for kind, _, _ in sent] == ["question", "question"]
    t.assert_scheduled(send_reminder, delay=timedelta(minutes=30, seconds=5))
    assert [job.key for job in t.jobs(send_reminder, state="cancelled")] == ["reminder-t-1"]


async def test_every_job_sees_its_own_due_time_as_now(t: oncue.testing.Harness) -> None:
    began = t.now
    for hours in (3, 1, 2):
        await app.schedule(send_reminder.call(f"t-{hours}"), delay=timedelta(hours=hours, seconds=0.000001))
    done = await t.advance(timedelta(days=1))
    assert (done.ran, done.remaining, done.next_due) == (3, 0, None)
    step = timedelta(microseconds=1)
    assert sent == [("reminder", f"t-{n}", began + timedelta(hours=n) + step) for n in (1, 2, 3)]


async def test_it_says_what_there_is_when_an_assertion_fails(t: oncue.testing.Harness) -> None:
    with pytest.raises(AssertionError, match="Nothing is scheduled. There was nothing."):
        t.assert_scheduled(send_reminder)
    await app.schedule(send_reminder.call("t-9"), delay=60, key="reminder-t-9", group="g")
    with pytest.raises(AssertionError) as error:
        t.assert_scheduled(send_reminder, key="reminder-t-1", args={"trial_id": "t-1"}, delay=30)
    text = str(error.value)
    assert 'No scheduled job is of send_reminder with {"trial_id":"t-1"}, key \'reminder-t-1\'' in text
    assert "due 2030-01-01T12:00:30+00:00 (in 0:00:30)" in text
    assert '#1 send_reminder {"trial_id":"t-9"} scheduled, due 2030-01-01T12:01:00+00:00 (in 0:01:00)' in text
    assert "key 'reminder-t-9', group 'g'" in text
    with pytest.raises(AssertionError, match="1 scheduled, where none should be of send_reminder"):
        t.assert_not_scheduled(send_reminder)
    await app.schedule(send_reminder.call("t-9"), delay=60)
    with pytest.raises(AssertionError, match="2 scheduled jobs are of send_reminder"):
        t.assert_scheduled(send_reminder)
    await t.advance(60)
    with pytest.raises(AssertionError, match=r"Nothing is scheduled. There was:\n  #1 .* completed"):
        t.assert_scheduled(send_reminder)


@pytest.mark.parametrize(
    ("difference", "matches"),
    [
        ({}, True),
        ({"key": "k"}, True),
        ({"key": "other"}, False),
        ({"group": "g"}, True),
        ({"group": "other"}, False),
        ({"delay": 60}, True),
        ({"delay": 61}, False),
        ({"at": datetime(2030, 1, 1, 13, 1, tzinfo=BERLIN)}, True),
        ({"at": datetime(2030, 1, 1, 12, 1, tzinfo=BERLIN)}, False),
        ({"args": ("t-1",)}, True),
        ({"args": {"trial_id": "t-1"}}, True),
        ({"args": ("t-2",)}, False),
    ],
)
async def test_assert_scheduled_compares_all_that_is_given(
    t: oncue.testing.Harness, difference: dict[str, object], matches: bool
) -> None:
    await app.schedule(send_reminder.call("t-1"), delay=60, key="k", group="g")
    if matches:
        assert t.assert_scheduled("send_reminder", **difference).key == "k"  # type: ignore[arg-type]
    else:
        t.assert_not_scheduled("send_reminder", **difference)  # type: ignore[arg-type]
        with pytest.raises(AssertionError):
            t.assert_scheduled("send_reminder", **difference)  # type: ignore[arg-type]


async def test_questions_that_make_no_sense_are_refused(t: oncue.testing.Harness) -> None:
    with pytest.raises(TypeError, match="not both"):
        t.assert_scheduled(send_reminder, delay=1, at=t.now)
    with pytest.raises(TypeError, match="arguments already"):
        t.assert_scheduled(send_reminder.call("t-1"), args=("t-1",))
    with pytest.raises(UnknownTask, match="send_remainder.*send_reminder"):
        t.assert_not_scheduled("send_remainder")
    with pytest.raises(InvalidTime):
        await t.advance_to(t.now - timedelta(seconds=1))


async def test_the_application_is_as_it_was_afterwards_and_each_run_is_new() -> None:
    before = (app.url, app.clock, app.store, app.wake, app.jobs)
    for _ in range(2):
        async with oncue.testing.run(app) as t:
            assert t.jobs() == []
            app.sync.schedule(send_reminder.call("t-1"))
            assert len(t.jobs()) == 1
    assert (app.url, app.clock, app.store, app.wake, app.jobs) == before


async def test_an_application_that_is_open_is_refused(t: oncue.testing.Harness) -> None:
    with pytest.raises(ConfigError, match="is open on"):
        async with oncue.testing.run(app):
            raise AssertionError("must not begin")


async def test_retries_and_snoozes_take_their_time() -> None:
    app = OnCue("sqlite:///unused.db")
    tries: list[datetime] = []

    @app.task(name="shaky", retry=Retry(max_attempts=3, delay=Exponential(base=60, factor=2, jitter=False)))
    async def shaky() -> None:
        tries.append(from_us(app.clock.now()))
        raise ValueError("not yet")

    @app.task(name="sleepy")
    async def sleepy(ctx: JobContext) -> None:
        if ctx.attempt < 3:
            raise Snooze(600)

    async with oncue.testing.run(app) as t:
        await app.schedule(shaky.call())
        await app.schedule(sleepy.call())
        done = await t.advance(hours=2)
        assert (done.ran, done.failed) == (1, 3)
        assert [job.reason for job in t.jobs(shaky, state="discarded")] == ["all 3 attempts failed"]
        [job] = t.completed(sleepy)
        assert from_us(job.scheduled_at) == datetime(2030, 1, 1, 12, 20, tzinfo=UTC)
    assert len(tries) == 3
    assert tries[1] - tries[0] == timedelta(seconds=60)
    assert tries[2] - tries[1] == timedelta(seconds=120)


async def test_a_cron_over_both_clock_changes() -> None:
    app = OnCue("sqlite:///unused.db")
    fired: list[datetime] = []

    @app.cron("30 2 * * *", timezone="Europe/Berlin")
    async def nightly() -> None:
        fired.append(from_us(app.clock.now()).astimezone(BERLIN))

    async with oncue.testing.run(app, start=datetime(2025, 3, 28, 12, tzinfo=BERLIN)) as t:
        done = await t.advance(days=3)
        assert done.ran == 3
        assert done.next_due is not None
    # 02:30 does not exist on 30 March: the fire comes at 03:00, when the gap ends. See oncue.cron for the rule.
    assert [moment.strftime("%d %H:%M") for moment in fired] == ["29 02:30", "30 03:00", "31 02:30"]
    fired.clear()
    async with oncue.testing.run(app, start=datetime(2025, 10, 25, 12, tzinfo=BERLIN)) as t:
        await t.advance(days=2)
    # 02:30 comes twice on 26 October: once is enough.
    assert [(moment.day, moment.hour, moment.minute, moment.fold) for moment in fired] == [
        (26, 2, 30, 0),
        (27, 2, 30, 0),
    ]


async def test_work_that_never_ends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    app = OnCue("sqlite:///unused.db")
    monkeypatch.setattr(oncue.testing, "_MOST_JOBS", 50)

    @app.task(name="again")
    async def again() -> None:
        await app.schedule(again.call())

    async with oncue.testing.run(app) as t:
        await app.schedule(again.call())
        with pytest.raises(oncue.testing.NeverIdle, match=r"50 jobs ran .*\n.*again"):
            await t.drain()
        assert (await t.drain(limit=5)).ran == 5


async def test_a_source_is_read_on_the_way() -> None:
    app = OnCue("sqlite:///unused.db")
    asked: list[tuple[int, datetime]] = []

    @app.task(name="ask")
    async def ask(id: int) -> None:
        asked.append((id, from_us(app.clock.now())))

    app.source(table="trials", key="ask-{id}", due="next_at", where="status = 'active'", task=ask)
    async with oncue.testing.run(app) as t:
        with sqlite3.connect(t.path) as conn:
            conn.execute("CREATE TABLE trials (id INTEGER PRIMARY KEY, status TEXT, next_at TEXT)")
            due = [(n, "active", (t.now + timedelta(hours=n)).isoformat()) for n in (1, 2)]
            conn.executemany("INSERT INTO trials VALUES (?, ?, ?)", due)
        conn.close()
        began = t.now
        await t.advance(hours=3)
    assert asked == [(n, began + timedelta(hours=n)) for n in (1, 2)]
