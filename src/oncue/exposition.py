"""The figures of a process and its fleet as Prometheus takes them; needs ``oncue[metrics]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from oncue.clock import SECOND
from oncue.fleet import Fleet
from oncue.metrics import EDGES, Histogram, Recorder
from oncue.store.steps.watch import LateQueue
from oncue.wake import Wake

if TYPE_CHECKING:
    from oncue.app import OnCue

_LIVE = ("scheduled", "due", "blocked", "running", "discarded")
_FINISHED = ("completed", "cancelled")
MOST_NAMES, OTHERS = 100, "(others)"
"""So many queues are told of one by one, so that no caller can make any number of series."""
_LIVES = ("alive", "silent", "dead")
_OUTCOMES = ("completed", "retried", "discarded", "snoozed", "released", "skipped", "cancelled", "rescued")
Series = Mapping[Any, float]
"""Figures by the values of their labels, as tuples."""


class Exposition(Collector):
    """One scrape of an application, as ``prometheus_client.generate_latest`` takes it.

    ``fleet``: what the database told; None where it can't be used; without, it was not asked.
    """

    def __init__(self, app: OnCue, *fleet: Fleet | None) -> None:
        self._app, self._asked = app, fleet

    def collect(self) -> Iterator[Metric]:
        """Yield all families, each name once."""
        yield _gauge(
            "oncue_build_info", "Always 1; which version of OnCue answers.", {(version("oncue"),): 1}, "version"
        )
        yield from _attempts(self._app)
        yield from _rounds(self._app.metrics)
        yield from _hints(self._app.wake)
        yield from _clock(self._app)
        yield from _bridge(self._app)
        for fleet in self._asked:
            yield _gauge("oncue_database_up", "Whether the database could be read just now.", {(): fleet is not None})
            if fleet is not None:
                yield from _jobs(fleet)
                yield from _health(fleet)


def _attempts(app: OnCue) -> Iterator[Metric]:
    done, known = app.metrics, {task.name for task in app.tasks.values()}
    # From 0 on: who asks for an increase would not see the first one of a series that begins with it.
    outcomes: dict[tuple[str, str], float] = {(task, name): 0 for task in known for name in _OUTCOMES}
    outcomes |= {(task, name): n for task, found in done.tasks.items() for name, n in found.outcomes.items()}
    yield _counter(
        "oncue_attempts", "Attempts recorded by this process, by how they ended.", outcomes, "task", "outcome"
    )
    late = {task: found.lateness for task, found in done.tasks.items()}
    yield _histogram("oncue_lateness_seconds", "How long after its due time an attempt started.", late)
    ran = {task: found.duration for task, found in done.tasks.items()}
    yield _histogram("oncue_duration_seconds", "How long an attempt ran.", ran)


def _rounds(done: Recorder) -> Iterator[Metric]:
    for name, text, value in (
        ("oncue_claims", "Round trips of this process's workers: acks handed in and due jobs asked for.", done.claims),
        ("oncue_claimed_jobs", "Jobs that this process claimed.", done.claimed),
        ("oncue_acks", "Outcomes that this process recorded.", done.acks),
        ("oncue_acks_lost", "Outcomes that came too late: their jobs had been taken back.", done.acks_lost),
        (
            "oncue_leases_lost",
            "How often a worker of this process was taken for dead while it lived.",
            done.leases_lost,
        ),
        ("oncue_rescued_jobs", "Jobs that this process took back from dead workers.", done.rescued),
        ("oncue_limited_jobs", "How often a job was put off by a rate limit.", done.limited),
        ("oncue_skipped_jobs", "Jobs that ended unrun at the claim, because they were not to wait.", done.skipped),
    ):
        yield _counter(name, text, {(): value})
    results = {(name,): done.sweeps[name] for name in ("ok", "failed")}
    yield _counter("oncue_sweeps", "Sweeps of this process.", results, "result")
    worked = {(name,): n for name, n in done.sweeps.items() if (name,) not in results}
    yield _counter("oncue_swept", "What sweeps of this process did.", worked, "what")


def _hints(wake: Wake) -> Iterator[Metric]:
    counts = wake.counts
    for name, key, text in (
        ("oncue_hints_sent", "sent", "Hints that this process gave."),
        ("oncue_hints_heard", "heard", "Hints that this process heard from others."),
        ("oncue_hints_lost", "lost", "Hints, and proofs of the channel, that could not be sent or did not arrive."),
        ("oncue_wake_reconnects", "reconnects", "How often the wake channel had to be connected again."),
        ("oncue_wake_polls", "polls", "How often this process looked because the wake channel did not work."),
    ):
        yield _counter(name, text, {(): counts.get(key, 0)})
    carried = {(name.removeprefix("carrier_"),): n for name, n in counts.items() if name.startswith("carrier_")}
    yield _counter("oncue_announcements", "Announcements of jobs in BullMQ, by what became of them.", carried, "what")
    yield _gauge("oncue_wake_up", "Whether hints of other processes arrive at once.", {(): wake.healthy is None})


def _clock(app: OnCue) -> Iterator[Metric]:
    skew, exact = getattr(app.clock, "skew", 0.0), getattr(app.clock, "uncertainty", 0.0)
    yield _gauge("oncue_clock_skew_seconds", "How far the database's clock is ahead of this machine's.", {(): skew})
    yield _gauge("oncue_clock_uncertainty_seconds", "How exactly the database's clock is known.", {(): exact})


def _bridge(app: OnCue) -> Iterator[Metric]:
    adopted = {(one.queue, what): n for one in app.adoptions.values() for what, n in asdict(one.counts).items()}
    yield _counter("oncue_adopted", "What was done with jobs of adopted BullMQ queues.", adopted, "queue", "what")
    handed: dict[tuple[str, ...], float] = {}
    for target in app.node_targets:
        for what, n in asdict(target.counts).items():
            handed[target.queue, what] = handed.get((target.queue, what), 0) + n
    yield _counter("oncue_node_jobs", "What came of jobs handed to Node workers.", handed, "queue", "what")


def _jobs(fleet: Fleet) -> Iterator[Metric]:
    states = {(name,): getattr(fleet.jobs, name) for name in _LIVE}
    states |= {(name,): fleet.finished.get(name, 0) for name in _FINISHED}
    yield _gauge("oncue_jobs", "Jobs in the database; finished ones as long as they are kept.", states, "state")
    lanes = _most(fleet.due)
    due = {(one.queue,): one.jobs for one in lanes}
    yield _gauge("oncue_due_jobs", "Jobs that are due and don't run, but for paused ones.", due, "queue")
    blocked = {(one.queue,): one.blocked for one in lanes}
    yield _gauge("oncue_blocked_jobs", "Those of them that wait behind others.", blocked, "queue")
    age = {(one.queue,): max(0, fleet.now - one.first) / SECOND for one in lanes}
    yield _gauge("oncue_oldest_due_seconds", "For how long the first of them has been due.", age, "queue")
    paused = {(one.what, one.name if n < MOST_NAMES else OTHERS): 1 for n, one in enumerate(fleet.paused)}
    yield _gauge("oncue_paused", "Always 1: a queue or task that is paused.", paused, "what", "name")
    messages = {(channel, state): n for channel, state, n in fleet.messages}
    yield _gauge("oncue_messages", "Messages of conversations that are kept.", messages, "channel", "state")


def _most(due: Sequence[LateQueue]) -> Sequence[LateQueue]:
    """Return the queues with the most jobs, and the rest as one: a caller may name as many queues as there are jobs."""
    lanes = sorted(due, key=lambda one: one.jobs, reverse=True)
    most, rest = lanes[:MOST_NAMES], lanes[MOST_NAMES:]
    if not rest:
        return most
    jobs, blocked = sum(one.jobs for one in rest), sum(one.blocked for one in rest)
    return [*most, LateQueue(OTHERS, jobs, blocked, min(one.first for one in rest))]


def _health(fleet: Fleet) -> Iterator[Metric]:
    yield _gauge("oncue_workers", "Registered workers.", {(life,): fleet.workers[life] for life in _LIVES}, "state")
    swept = {} if fleet.swept_at is None else {(): max(0, fleet.now - fleet.swept_at) / SECOND}
    yield _gauge("oncue_sweep_age_seconds", "How long ago any process's last sweep ended.", swept)
    yield _gauge("oncue_schema_version", "The version of OnCue's tables.", {(): fleet.schema})
    drift = {(one.name,): int(one.drift is not None) for one in fleet.sources}
    yield _gauge("oncue_source_drift", "Whether the last sweep of a source found what it can't mend.", drift, "source")
    unreadable = {(one.name,): one.unreadable for one in fleet.sources}
    yield _gauge("oncue_source_unreadable_rows", "Rows of a source that can't be read.", unreadable, "source")
    ages = {(one.name,): max(0, fleet.now - one.swept_at) / SECOND for one in fleet.sources if one.swept_at is not None}
    yield _gauge("oncue_source_age_seconds", "How long ago a source was swept.", ages, "source")


def _counter(name: str, text: str, series: Series, *labels: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, series: Series, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, tasks: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["task"])
    edges = [*(str(edge / SECOND) for edge in EDGES), "+Inf"]
    for task, found in tasks.items():
        buckets = list(zip(edges, accumulate(found.counts), strict=True))
        family.add_metric([task], buckets, found.total / SECOND)
    return family
