"""OpenTelemetry: a span for what is scheduled and one for each attempt, in one trace whichever processes they are in.

Without ``oncue[otel]``, or where the application has not set OpenTelemetry up, nothing of this costs or does anything.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from oncue.job import Claimed, Completed, Failed, Outcome, Skipped, Snoozed
from oncue.redaction import NOTHING, Redaction

RESERVED = "oncue.trace"
"""The key of a job's metadata under which its trace is kept, which is shown to nobody."""
MOST_HOPS = 20
"""A job that is scheduled by a job goes on in its trace, so many times; then a new trace begins, linked to the old
one: else one that schedules its own successor would have a trace without an end."""
_hops: ContextVar[int] = ContextVar("oncue_hops", default=0)
UNTRACED: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
"""The context of what is not traced; yields None."""


class _Kept(msgspec.Struct, omit_defaults=True):
    """What a job carries: W3C's trace context, and how many jobs came before it in its trace."""

    traceparent: str = ""
    tracestate: str = ""
    hops: int = 0


class _Metadata(msgspec.Struct):
    trace: _Kept | None = msgspec.field(default=None, name=RESERVED)


def api() -> Any | None:
    """Return OpenTelemetry's trace API; None where this process has not loaded it and set a provider, as one that is
    traced has."""
    trace = sys.modules.get("opentelemetry.trace")
    provider = getattr(trace, "get_tracer_provider", None)
    if trace is None or provider is None or isinstance(provider(), trace.ProxyTracerProvider):
        return None
    return trace


def scheduling(what: str) -> contextlib.AbstractContextManager[Any]:
    """A span around the storing of jobs; yields it, or None."""
    trace = api()
    if trace is None:
        return UNTRACED
    attributes = {"messaging.system": "oncue", "messaging.operation.type": "send"}
    return _tracer(trace).start_as_current_span(  # type: ignore[no-any-return]
        f"schedule {what}", kind=trace.SpanKind.PRODUCER, attributes=attributes
    )


def carried(metadata: str | None, task: str) -> str | None:
    """Return a job's metadata, JSON text, with the trace that it belongs to."""
    trace = api()
    if trace is None:
        return metadata
    if trace.get_current_span().get_span_context().is_valid:
        return _with_trace(metadata)
    # Made by a schedule, a source or a queue: its attempts are to have one trace all the same.
    with scheduling(task):
        return _with_trace(metadata)


def _with_trace(metadata: str | None) -> str | None:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if "traceparent" not in carrier:
        return metadata
    kept = msgspec.json.encode(_Kept(**carrier, hops=_hops.get())).decode()
    rest = "}" if metadata is None or metadata == "{}" else f",{metadata[1:]}"
    return f'{{"{RESERVED}":{kept}{rest}'


def without_trace(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return decoded metadata as it was given: None where there was none."""
    if metadata is None or RESERVED not in metadata:
        return None if metadata is None else dict(metadata)
    return {key: value for key, value in metadata.items() if key != RESERVED} or None


async def traced(job: Claimed, started_at: int, work: Awaitable[Outcome], hides: Redaction = NOTHING) -> Outcome:
    """Await an attempt, which started at that time (microseconds), inside a span of its own, which tells nothing that
    is redacted."""
    trace = api()
    if trace is None:
        return await work
    with _running(trace, job, started_at) as span:
        outcome = await work
        _tell(trace, span, outcome, lambda text: hides.of_job(text, job))
        return outcome


@contextlib.contextmanager
def _running(trace: Any, job: Claimed, started_at: int) -> Iterator[Any]:
    kept = _kept(job.metadata)
    context, links, hops = _parent(trace, kept)
    attributes = {
        "messaging.system": "oncue",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.queue,
        "messaging.message.id": str(job.id),
        "oncue.task": job.task,
        "oncue.attempt": job.attempt,
        "oncue.lateness_ms": max(0, started_at - job.scheduled_at) / 1000,
    }
    token = _hops.set(hops)
    try:
        with _tracer(trace).start_as_current_span(
            f"run {job.task}", context, kind=trace.SpanKind.CONSUMER, attributes=attributes, links=links
        ) as span:
            yield span
    finally:
        _hops.reset(token)


def _parent(trace: Any, kept: _Kept | None) -> tuple[Any, list[Any], int]:
    """Return the context that an attempt goes on in, what it links to, and how many jobs came before what it makes."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # Never the context of whatever this worker did when it claimed.
    empty = Context()
    if kept is None:
        return empty, [], 0
    carrier = {"traceparent": kept.traceparent, "tracestate": kept.tracestate}
    context = TraceContextTextMapPropagator().extract(carrier, empty)
    before = trace.get_current_span(context).get_span_context()
    links = [trace.Link(before)] if before.is_valid else []
    return (context, links, kept.hops + 1) if kept.hops < MOST_HOPS else (empty, links, 0)


def _kept(metadata: str | None) -> _Kept | None:
    if metadata is None or RESERVED not in metadata:
        return None
    try:
        return msgspec.json.decode(metadata, type=_Metadata).trace
    except msgspec.MsgspecError:
        return None


def _tell(trace: Any, span: Any, outcome: Outcome, shown: Callable[[str], str]) -> None:
    span.set_attribute("oncue.outcome", type(outcome).__name__.lower())
    if isinstance(outcome, Failed):
        error, stack = shown(outcome.error), shown(outcome.traceback or "")
        kind, _, said = error.partition(": ")
        told = {"exception.type": kind, "exception.message": said, "exception.stacktrace": stack}
        span.add_event("exception", told)
        span.set_status(trace.Status(trace.StatusCode.ERROR, error))
    elif isinstance(outcome, (Snoozed, Skipped)):
        span.set_attribute("oncue.reason", shown(outcome.reason))
    elif isinstance(outcome, Completed):
        span.set_status(trace.Status(trace.StatusCode.OK))


def _tracer(trace: Any) -> Any:
    return trace.get_tracer("oncue")


def current_ids() -> tuple[str, str] | None:
    """Return the trace id and span id, in hexadecimal, that this code runs in; None where it is not traced."""
    trace = api()
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None
