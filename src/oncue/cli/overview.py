"""How things are, as text: for ``oncue status`` and ``oncue top``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncue.cli.output import Moment, clean, plain
from oncue.operate import Filter, Operator
from oncue.operate.find import LATE
from oncue.operate.shape import from_iso
from oncue.operate.views import Health, Overview
from oncue.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_COUNTS = ("due", "late", "running", "scheduled", "blocked", "discarded", "completed", "cancelled")
_BAD = {"late": "bold red", "discarded": "red", "blocked": "yellow", "running": "cyan"}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SECONDS = 1000.0
_SHOWN = 3


@dataclass(frozen=True)
class Trouble:
    """A job that somebody should look at: ``late`` or ``discarded``, since when, and why."""

    kind: str
    id: int
    task: str
    since: Moment
    why: str


async def troubles(operator: Operator, found: Overview) -> list[Trouble]:
    """Return the jobs that are late for longest, and those that were discarded last, within the past hour."""
    app, shown = operator.app, []
    if found.counts.late:
        for job in await app.store.overdue(app.clock.now() - LATE, _SHOWN):
            why = (await operator.job(job.id)).why
            shown.append(Trouble("late", job.id, job.task, Moment(job.scheduled_at), why))
    if _gone(found):
        for one in (await operator.page(Filter(state="discarded"), limit=_SHOWN)).items:
            ended = from_iso(one.finished_at or found.now)
            if ended >= from_iso(found.past[0].at):
                said = "; ".join(part for part in (one.reason, one.error) if part)
                shown.append(Trouble("discarded", one.id, one.task, Moment(ended), said))
    return shown


def rows(found: Overview, jobs: Sequence[Trouble]) -> Iterator[tuple[str, ...]]:
    """Return how things are as fields for tab-separated lines; minutes and spans in which nothing was are left out."""
    yield ("now", found.now)
    for name in _COUNTS:
        yield ("count", name, str(getattr(found.counts, name)))
    for name in ("p50_ms", "p99_ms", "max_ms", "window_s"):
        yield ("lateness", name, plain(getattr(found.lateness, name)))
    yield ("throughput", "per_s", str(found.throughput_per_s))
    for coming in found.coming:
        if coming.count:
            yield ("coming", coming.at, str(coming.count))
    for past in found.past:
        if past.started or past.retried or past.discarded:
            figures = (past.started, past.completed, past.retried, past.discarded, past.p50_ms, past.p99_ms)
            yield ("past", past.at, *map(plain, (*figures, past.max_ms)))
    for job in jobs:
        yield (job.kind, str(job.id), job.task, job.since.iso, plain(job.why))
    for one in found.health:
        yield ("health", one.name, one.state, plain(one.found), one.remedy or "")


def line(found: Overview) -> str:
    """Return how things are as one tab-separated line: when, counts, lateness, starts a second, and what isn't well."""
    counts = [f"{name}={getattr(found.counts, name)}" for name in _COUNTS]
    spans = {"p50": found.lateness.p50_ms, "p99": found.lateness.p99_ms}
    lateness = [f"{name}={'-' if ms is None else f'{ms:g}ms'}" for name, ms in spans.items()]
    bad = ["late"] if found.counts.late else []
    bad += ["discarded"] if _gone(found) else []
    bad += [one.name for one in found.health if one.state != "ok"]
    return "\t".join((found.now, *counts, *lateness, f"rate={found.throughput_per_s:g}/s", ",".join(bad) or "well"))


def _gone(found: Overview) -> int:
    # Those that were put back, or cancelled, need nobody any more.
    return min(found.counts.discarded, sum(minute.discarded for minute in found.past))


def _verdict(found: Overview) -> Text:
    """Say first of all whether all is well, in the words of the page."""
    from rich.text import Text

    late, gone = found.counts.late, _gone(found)
    bad = [one.state for one in found.health if one.state != "ok"]
    said = [f"{counted(late, 'job')} late."] if late else []
    said += [f"{counted(gone, 'job')} discarded in the past hour."] if gone else []
    said += [f"{counted(len(bad), 'check needs', 'checks need')} you."] if bad else []
    if not said:
        return Text("All is well.", style=_STYLES["ok"])
    return Text(" ".join(said), style=_STYLES["fail" if late or "fail" in bad else "warn"])


def picture(found: Overview, jobs: Sequence[Trouble]) -> RenderableType:
    """Return how things are for a terminal, whatever its width."""
    from rich.console import Group
    from rich.text import Text

    past = found.past
    ended = {name: sum(getattr(minute, name) for minute in past) for name in ("started", "retried", "discarded")}
    lines: list[Text] = [
        _verdict(found),
        _counts(found),
        Text(_lateness(found)),
        Text.assemble(
            "past hour  ", (bars([minute.started for minute in past]), "green"),
            f"  {ended['started']:,} started, {ended['retried']:,} retried, {ended['discarded']:,} discarded",
        ),
        Text.assemble(
            "next 10 min  ", (bars([span.count for span in found.coming]), "cyan"),
            f"  {counted(sum(span.count for span in found.coming), 'job')}",
        ),
        *(_trouble(job) for job in jobs),
        *_health(found.health),
    ]  # fmt: skip
    return Group(*lines)


def _lateness(found: Overview) -> str:
    late = found.lateness
    spans = {"p50": late.p50_ms, "p99": late.p99_ms, "max": late.max_ms}
    said = ", ".join(f"{name} {_span(ms)}" for name, ms in spans.items() if ms is not None)
    if not said:
        return f"nothing started in the last {late.window_s} s"
    return f"lateness {said} in the last {late.window_s} s; {found.throughput_per_s:g} started a second"


def _counts(found: Overview) -> Text:
    from rich.text import Text

    parts = Text()
    for name in _COUNTS:
        count = getattr(found.counts, name)
        parts.append(f"{count:,}", style=_BAD.get(name, "bold") if count else "dim")
        parts.append(f" {name}   ", style="" if count else "dim")
    return parts


def _trouble(job: Trouble) -> Text:
    from rich.text import Text

    since = f"due {job.since.near}" if job.kind == "late" else job.since.near
    return Text.assemble(
        (f"{job.kind} ", _BAD[job.kind]), f"job {job.id} ({clean(job.task)}), {since}: {plain(job.why)}"
    )


def _health(checks: Sequence[Health]) -> Iterator[Text]:
    from rich.text import Text

    for one in sorted(checks, key=lambda one: ("fail", "warn", "ok").index(one.state)):
        text = Text(f"{one.state:<5}", style=_STYLES[one.state])
        yield text.append(f"{one.name}: {clean(one.found)}", style="default not bold")
        if one.remedy and one.state != "ok":
            yield Text(f"      {clean(one.remedy)}", style="dim")


def _span(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < _SECONDS else f"{ms / _SECONDS:,.1f} s"


def bars(counts: Sequence[int]) -> str:
    """Return a bar for each count, the highest full; a space for none."""
    most = max(counts, default=0)
    return "".join(" " if not count else _BARS[-(-count * len(_BARS) // most) - 1] for count in counts)
