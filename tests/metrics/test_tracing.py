"""Spans from ``schedule`` to the handler: one trace over retries, threads and processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from oncue import JobContext, OnCue
from oncue.errors import InvalidJob
from oncue.retry import Retry, Snooze
from oncue.scheduling import Scheduled
from oncue.testing import TestClock
from oncue.tracing import MOST_HOPS, RESERVED, carried, current_ids, without_trace
from tests.clocked import Make
from tests.databases import Backend

_exporter = InMemorySpanExporter()
# Loaded, it has every application traced: those of other tests are not to be.
_LOADED = sys.modules.pop("opentelemetry.trace")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is collected. The SDK can be set up once in a process."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", _LOADED)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [one for one in spans.get_finished_spans() if one.name == name]


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


async def test_attempts_are_children_of_what_scheduled_them_whoever_runs_them(
    make: Make, clock: TestClock, spans: InMemorySpanExporter
) -> None:
    first, second = make(), make()

    @first.task(name="send")
    async def send(number: int) -> None: ...

    @second.task(name="send")
    async def also(job: JobContext, number: int) -> None:
        if job.attempt == 1:
            raise ValueError("no such person")

    async with first:
        with trace.get_tracer("web").start_as_current_span("POST /answers") as request:
            job = await first.schedule(send.call(1), queue="mail")
    clock.advance(2)
    await second.drain(limit=1)
    clock.advance(3600)
    await second.drain()

    (scheduled,) = named(spans, "schedule send")
    failed, done = named(spans, "run send")
    assert scheduled.kind == SpanKind.PRODUCER
    assert parent_of(scheduled) == request.get_span_context().span_id
    assert (failed.kind, done.kind) == (SpanKind.CONSUMER, SpanKind.CONSUMER)
    assert parent_of(failed) == parent_of(done) == id_of(scheduled)
    assert trace_of(failed) == trace_of(done) == trace_of(scheduled) == request.get_span_context().trace_id
    assert [link.context.span_id for link in done.links] == [id_of(scheduled)]
    assert failed.attributes is not None
    assert failed.attributes["messaging.message.id"] == str(job.id)
    assert failed.attributes["messaging.destination.name"] == "mail"
    assert failed.attributes["oncue.lateness_ms"] == 2000
    assert failed.attributes["oncue.outcome"] == "failed"
    assert failed.status.status_code == StatusCode.ERROR
    (event,) = failed.events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "no such person"
    assert done.attributes is not None
    assert (done.attributes["oncue.attempt"], done.attributes["oncue.outcome"]) == (2, "completed")
    assert done.status.status_code == StatusCode.OK


async def test_what_a_handler_schedules_goes_on_in_its_trace(app: OnCue, spans: InMemorySpanExporter) -> None:
    @app.task(name="first")
    async def first() -> None:
        await app.schedule(second.call())

    @app.task(name="second")
    def second() -> None:
        # In a thread too.
        with trace.get_tracer("mine").start_as_current_span("query"):
            pass

    async with app:
        await app.schedule(first.call())
        await app.drain()

    (outer,), (inner,), (query,) = named(spans, "run first"), named(spans, "schedule second"), named(spans, "query")
    (run,) = named(spans, "run second")
    assert parent_of(inner) == id_of(outer)
    assert parent_of(run) == id_of(inner)
    assert parent_of(query) == id_of(run)
    assert len({trace_of(one) for one in (outer, inner, run, query)}) == 1


async def test_a_job_that_schedules_its_successor_has_no_trace_without_end(
    app: OnCue, spans: InMemorySpanExporter
) -> None:
    @app.task(name="again")
    async def again(left: int) -> None:
        if left:
            await app.schedule(again.call(left - 1))

    async with app:
        await app.schedule(again.call(MOST_HOPS + 2))
        await app.drain()

    runs = named(spans, "run again")
    assert len(runs) == MOST_HOPS + 3
    before, after = runs[MOST_HOPS - 1 : MOST_HOPS + 1]
    assert {trace_of(one) for one in runs[:MOST_HOPS]} == {trace_of(before)}
    assert {trace_of(one) for one in runs[MOST_HOPS:]} == {trace_of(after)}
    assert trace_of(before) != trace_of(after)
    assert parent_of(after) is None
    (link,) = after.links
    assert link.context.trace_id == trace_of(before)


async def test_attempts_of_what_nobody_scheduled_have_one_trace_too(
    app: OnCue, clock: TestClock, spans: InMemorySpanExporter
) -> None:
    tries = 0

    @app.cron("* * * * *", missed="skip", overlap="allow")
    async def nightly() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError

    async with app:
        await app.drain()
        clock.advance(60)
        for _ in range(3):
            await app.drain(limit=1)
            clock.advance(50)

    runs = [one for one in spans.get_finished_spans() if (one.attributes or {}).get("messaging.message.id") == "1"]
    assert len(runs) == 3
    assert len({trace_of(one) for one in runs}) == 1


async def test_many_jobs_share_the_span_that_stored_them(app: OnCue, spans: InMemorySpanExporter) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    async with app:
        await app.schedule_many([send.call(), Scheduled(send.call(), metadata={"a": 1})])
        await asyncio.to_thread(app.sync.schedule, send.call())
        await app.drain()

    (many,), (one,) = named(spans, "schedule 2 jobs"), named(spans, "schedule send")
    assert sorted(parent_of(run) or 0 for run in named(spans, "run send")) == sorted(
        [id_of(many), id_of(many), id_of(one)]
    )


async def test_the_trace_is_kept_in_the_metadata_and_shown_to_nobody(
    app: OnCue, backend: Backend, spans: InMemorySpanExporter
) -> None:
    seen = []

    @app.task(name="send")
    async def send(job: JobContext) -> None:
        seen.append(job.metadata)

    async with app:
        with_some = await app.schedule(send.call(), metadata={"campaign": 7})
        without = await app.schedule(send.call())
        waiting = await app.jobs.get(with_some.id)
        with backend.connect() as conn:
            table = "oncue_job" if backend.is_sqlite else "oncue.oncue_job"
            rows = [json.loads(text) for (text,) in conn.execute(f"SELECT metadata FROM {table} ORDER BY id")]
        await app.drain()
        done = [await app.jobs.get(job.id) for job in (with_some, without)]
        with pytest.raises(InvalidJob, match="OnCue keeps for itself"):
            await app.schedule(send.call(), metadata={RESERVED: "mine"})

    assert sorted(rows[0]) == ["campaign", RESERVED]
    assert list(rows[1]) == [RESERVED]
    assert waiting is not None
    assert waiting.metadata == {"campaign": 7}
    assert [None if one is None else one.metadata for one in done] == [{"campaign": 7}, None]
    assert seen == [{"campaign": 7}, {}]


async def test_a_snooze_is_no_error_and_says_why(app: OnCue, spans: InMemorySpanExporter) -> None:
    @app.task(name="send")
    async def send(job: JobContext) -> None:
        assert current_ids() is not None
        raise Snooze(60, "not yet")

    async with app:
        await app.schedule(send.call())
        await app.drain(limit=1)

    (run,) = named(spans, "run send")
    assert run.status.status_code == StatusCode.UNSET
    assert run.attributes is not None
    assert (run.attributes["oncue.outcome"], run.attributes["oncue.reason"]) == ("snoozed", "not yet")
    assert current_ids() is None


async def test_no_span_tells_what_is_redacted(app: OnCue, spans: InMemorySpanExporter) -> None:
    app.redact("phone")

    @app.task(name="send", retry=Retry.never())
    async def send(phone: str, again: bool) -> None:
        if again:
            raise Snooze(60, f"{phone} is busy")
        raise ValueError(f"nobody at {phone}")

    async with app:
        for again in (False, True):
            await app.schedule(send.call("+49 151 234567", again))
        await app.drain()

    failed, snoozed = named(spans, "run send")
    [event] = failed.events
    assert event.attributes is not None
    assert failed.status.description == "ValueError: nobody at •••"
    assert event.attributes["exception.message"] == "nobody at •••"
    assert "nobody at •••" in str(event.attributes["exception.stacktrace"])
    assert snoozed.attributes is not None
    assert snoozed.attributes["oncue.reason"] == "••• is busy"
    assert "234567" not in "".join(one.to_json() for one in spans.get_finished_spans())


@pytest.mark.parametrize("kept", ["nonsense", {"traceparent": "00-zz"}, {"traceparent": 5}, None])
async def test_a_trace_that_cant_be_read_keeps_no_job_from_running(
    app: OnCue, backend: Backend, spans: InMemorySpanExporter, kept: object
) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    async with app:
        await app.schedule(send.call())
        backend.execute(f"UPDATE oncue_job SET metadata = '{json.dumps({RESERVED: kept})}'")
        assert (await app.drain()).ran == 1

    assert parent_of(named(spans, "run send")[0]) is None


async def test_without_a_trace_metadata_stay_as_they_are() -> None:
    assert carried(None, "send") is None
    assert carried('{"a":1}', "send") == '{"a":1}'
    assert without_trace(None) is None
    assert without_trace({}) == {}


@pytest.mark.parametrize("loaded", ["opentelemetry", ""])
def test_without_a_provider_nothing_is_traced_and_nothing_loaded(tmp_path: Path, loaded: str) -> None:
    code = (
        f"{'import opentelemetry.trace' if loaded else ''}\n"
        "import asyncio, sys\n"
        "from oncue import OnCue\n"
        f"app = OnCue('sqlite:///{tmp_path}/jobs.db')\n"
        "@app.task()\n"
        "async def send() -> None: ...\n"
        "async def main():\n"
        "    async with app:\n"
        "        await app.schedule(send.call())\n"
        "        assert (await app.drain()).ran == 1\n"
        "asyncio.run(main())\n"
        "from oncue.tracing import api\n"
        "assert api() is None\n"
        f"assert [name for name in sys.modules if name == 'opentelemetry'] == {[loaded] if loaded else []}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
