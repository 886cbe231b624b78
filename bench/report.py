"""The table: every figure with its spread over the runs, and OnCue's ratio to each peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.peers import SUITES
from bench.targets import far_rows, target_rows

Runs = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """All that one run found; ``figures`` by work, then by peer, one entry a run."""

    suite: str
    machine: dict[str, str]
    seconds: float
    parts: dict[str, float]
    quick: bool
    far: int
    sizes: dict[str, Any]
    bounds: dict[str, list[float]]
    figures: dict[str, dict[str, list[dict[str, Any]]]]
    problems: dict[str, list[str]]
    notes: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data, every single run included."""
        return asdict(self)


def markdown(result: Result) -> str:
    """The whole table as Markdown."""
    parts = [_head(result)]
    parts += [_bounds(result)] if result.bounds else []
    for work, section in _SECTIONS.items():
        if result.figures.get(work):
            parts.append(section(result))
    if result.suite == "sqlite":
        rows = far_rows(result.figures)
        parts += [_section("## With far jobs pending", ["figure", "without", "with", "ratio"], rows)]
    aims = target_rows(result.suite, result.figures)
    parts += [_section("## OnCue against its aims", ["aim", "bar", "found", "met"], aims)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{title}\n\n{_table(head, rows)}" if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _spread(values: Sequence[float]) -> str:
    """Median, and the smallest and largest where there are several."""
    if not values:
        return "-"
    text = _number(median(values))
    return f"{text} ({_number(min(values))}-{_number(max(values))})" if len(values) > 1 else text


def _values(runs: Runs, key: str) -> list[float]:
    return [run[key] for run in runs if run.get(key) is not None]


def _ratio(ours: Sequence[float], theirs: Sequence[float], *, less_is_better: bool) -> str:
    if not ours or not theirs or median(ours) <= 0 or median(theirs) <= 0:
        return "-"
    factor = median(theirs) / median(ours) if less_is_better else median(ours) / median(theirs)
    return f"{_number(factor)} x"


_COST = "CPU a job, us: worker / server"


def _cost(runs: Runs) -> str:
    worker, server = _values(runs, "worker_us"), _values(runs, "server_us")
    text = [f"{median(values):,.0f}" if values else "-" for values in (worker, server)]
    return " / ".join(text)


def _head(result: Result) -> str:
    lines = ["# OnCue and its peers, in one run", ""]
    if result.quick:
        lines += [
            f"**QUICK RUN: {result.sizes['runs']} run, smaller sizes, idle for {result.sizes['idle_s']:.0f} s.**",
            "",
        ]
    lines += [f"- {name}: {value}" for name, value in result.machine.items()]
    parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in result.parts.items())
    lines += [f"- the run took {result.seconds / 60:.0f} min: {parts}", f"- {_runs(result.sizes)}"]
    lines += ["- only ratios within this one run count; what is comparable and what isn't: bench/README.md"]
    lines += [f"- {name}: {note}" for name, note in result.notes.items()]
    for label, texts in result.problems.items():
        for text in texts:
            first, *rest = text.strip().splitlines()
            lines.append(f"- **{label}: {' ... '.join([first, *rest[-1:]])}**")
    return "\n".join(lines)


def _runs(sizes: dict[str, Any]) -> str:
    """How often everything was measured."""
    runs = sizes["runs"]
    if runs == 1:
        return "each figure is of a single run"
    fewer = ", ".join(f"{work} {min(runs, few)}" for work, few in sizes["peer_runs"].items() if few < runs)
    return (
        f"figures are the median of {runs} runs (smallest-largest)"
        + (f"; fewer for all but oncue: {fewer}" if fewer else "")
        + f"; idle once; what took more than {sizes['slow_s']:.0f} s or never came back is not repeated"
    )


def _bounds(result: Result) -> str:
    rows = [[name, _spread(values)] for name, values in result.bounds.items()]
    store = "SQLite: WAL, synchronous=FULL" if result.suite == "sqlite" else "PostgreSQL by asyncpg"
    return f"## What the machine can do ({store})\n\n" + _table(["bound", "found"], rows)


def _lateness(result: Result) -> str:
    found = result.figures["lateness"]
    ours = _values(found.get("oncue", []), "p99")
    rows = []
    for label, runs in found.items():
        cells = [label, *(_spread(_values(runs, key)) for key in ("p50", "p99", "max"))]
        cells += [str(int(sum(_values(runs, key)))) for key in ("early", "missing", "doubled")]
        rows.append([*cells, _ratio(ours, _values(runs, "p99"), less_is_better=True), _cost(runs)])
    head = ["who", "p50 ms", "p99 ms", "max ms", "early", "missing", "doubled", "its p99 / OnCue's", _COST]
    return f"## Lateness of {result.sizes['late_jobs']:,} jobs due over 2-10 s\n\n" + _table(head, rows)


def less_start_up(figures: dict[str, dict[str, list[dict[str, Any]]]], label: str, jobs: int) -> list[float]:
    """Jobs/s from starting the process to the last handler's end, less the time to a first job."""
    starts = _values(figures.get("start", {}).get(label, []), "seconds")
    if not starts:
        return []
    return [
        jobs / (run["seconds"] - median(starts)) for run in figures["drain"][label] if run["seconds"] > median(starts)
    ]


def _drain(result: Result) -> str:
    found, jobs = result.figures["drain"], result.sizes["drain_jobs"]
    ours = _values(found.get("oncue", []), "per_s")
    rows = []
    for label, measured in found.items():
        runs = _with_cost(result, label, measured)
        cells = [label, _spread(_values(runs, "per_s")), _spread(less_start_up(result.figures, label, jobs))]
        cells += [_spread(_values(result.figures.get("start", {}).get(label, []), "seconds"))]
        cells += [
            _number(max(_values(runs, "memory_mb"))),
            f"{int(sum(_values(runs, 'missing')))} / {int(sum(_values(runs, 'doubled')))}",
        ]
        kept = _values(runs, "completed")
        cells += [f"{int(kept[-1]):,}" if kept else "none", _ratio(ours, _values(runs, "per_s"), less_is_better=False)]
        rows.append([*cells, _cost(runs)])
    head = [
        "who",
        "jobs/s",
        "jobs/s less start-up",
        "start-up s",
        "peak MB",
        "missing / doubled",
        "history kept",
        "OnCue's rate / its",
        _COST,
    ]
    return f"## Drain: {jobs:,} no-op jobs, due before the worker starts\n\n" + _table(head, rows)


def _with_cost(result: Result, label: str, runs: Runs) -> Runs:
    """The worker's CPU time less that of its start-up, a job."""
    start = median(_values(result.figures.get("start", {}).get(label, []), "cpu_s") or [0.0])
    return [run | {"worker_us": max(0.0, run["cpu_s"] - start) / result.sizes["drain_jobs"] * 1e6} for run in runs]


def _groups(result: Result) -> str:
    rows = []
    for label, runs in result.figures["groups"].items():
        found = {name: [run[name] for run in runs] for name in ("none", "one", "two")}
        rates = {name: _values(some, "per_s") for name, some in found.items()}
        shares = [_ratio(rates[name], rates["none"], less_is_better=False) for name in ("one", "two")]
        wrong = [str(int(sum(sum(_values(some, key)) for some in found.values()))) for key in ("missing", "doubled")]
        memory = _number(max(max(_values(some, "memory_mb")) for some in found.values()))
        rows.append([label, *map(_spread, rates.values()), *shares, " / ".join(wrong), memory])
    count = result.sizes["groups"]
    head = ["who", "no groups, jobs/s", "one job a group, jobs/s", "two jobs a group, jobs/s"]
    head += ["one / none", "two / none", "missing / doubled", "peak MB"]
    return f"## Groups: {count:,} of them, their no-op jobs due before the worker starts\n\n" + _table(head, rows)


def _together(result: Result) -> str:
    rows = []
    fleet = str(result.sizes["fleet"])
    for label, runs in result.figures["together"].items():
        one, many = ([run[key] for run in runs] for key in ("1", fleet))
        rates = [_values(some, "per_s") for some in (one, many)]
        wrong = [str(int(sum(_values(one + many, key)))) for key in ("missing", "doubled")]
        ratio = _ratio(rates[1], rates[0], less_is_better=False)
        rows.append([label, *map(_spread, rates), ratio, " / ".join(wrong), _cost(one), _cost(many)])
    head = ["who", "one process, jobs/s", f"{fleet} processes, jobs/s", f"{fleet} / one", "missing / doubled"]
    head += [f"one: {_COST}", f"{fleet}: {_COST}"]
    title = f"## Together: {result.sizes['fleet_jobs']:,} no-op jobs that come due at one moment, workers waiting"
    return f"{title}\n\n" + _table(head, rows)


def _enqueue(result: Result) -> str:
    found = result.figures["enqueue"]
    ours = {key: _values(found.get("oncue", []), key) for key in ("single_per_s", "bulk_per_s")}
    rows = []
    for label, runs in found.items():
        single, bulk = _values(runs, "single_per_s"), _values(runs, "bulk_per_s")
        how = SUITES[result.suite][label.split(" ")[0]].singles
        ratios = [
            _ratio(ours["single_per_s"], single, less_is_better=False),
            _ratio(ours["bulk_per_s"], bulk, less_is_better=False),
        ]
        cost = [_values(runs, key) for key in ("single_server_us", "bulk_server_us")]
        server = " / ".join(f"{median(values):,.0f}" if values else "-" for values in cost)
        rows.append([label, _spread(single), how, _spread(bulk) if bulk else "no such call", *ratios, server])
    head = ["who", "single calls/s", "how", "bulk jobs/s", "single: OnCue's / its", "bulk: OnCue's / its"]
    head += ["server's CPU a job, us: single / bulk"]
    singles, bulks = result.sizes["single_jobs"], result.sizes["bulk_jobs"]
    title = f"## Enqueue: jobs due in an hour; {singles:,} single calls a round, and {bulks:,} in bulk"
    return f"{title}\n\n" + _table(head, rows)


def _crash(result: Result) -> str:
    return _crashes(result, "crash", "restart at once")


def _elsewhere(result: Result) -> str:
    return _crashes(result, "elsewhere", "at once a new worker on another host")


def _crashes(result: Result, work: str, what: str) -> str:
    rows = []
    for label, runs in result.figures[work].items():
        rows.append([label, str(runs[0]["running"]), outcome(runs), str(runs[0].get("left", "-"))])
    jobs, cap = result.sizes["crash_jobs"], result.sizes["crash_cap_s"]
    head = ["who", "running when killed", "from its start until all have completed", "still in the store"]
    return f"## Crash: {jobs} running jobs of 1 s, SIGKILL, {what} (cap {cap:.0f} s)\n\n" + _table(head, rows)


def outcome(runs: Runs) -> str:
    """Seconds until all were done, or what became of them by the cap."""
    seconds = _values(runs, "seconds")
    if len(seconds) == len(runs):
        return f"{_spread(seconds)} s"
    worst = next(run for run in runs if run.get("seconds") is None)
    if worst.get("left") == 0:
        return f"**lost {'all ' if worst['came_back'] == 0 else ''}{worst['lost']}**"
    return f"> {worst['cap_s']:.0f} s ({worst['came_back']} back by then)"


def _idle(result: Result) -> str:
    rows = []
    for label, (run, *_) in result.figures["idle"].items():
        top = "; ".join(f"{count} x `{name[:60]}`" for name, count in list(run.get("top", {}).items())[:4])
        used = ["-" if run.get(key) is None else f"{run[key]:.2f}" for key in ("cpu_s", "server_cpu_s")]
        counts = ["-" if run.get(key) is None else str(run[key]) for key in ("statements", "commands")]
        memory = _number(run["memory_mb"]) if "memory_mb" in run else "-"
        rows.append([label, *used, *counts, top.replace("|", "/") or "-", memory, run.get("durability", "-")])
    head = ["who", "CPU s", "its servers' CPU s", "statements", "Redis commands", "the most frequent", "peak MB"]
    how = "all at the same time, each with servers of its own"
    title = f"## Idle for {result.sizes['idle_s']:.0f} s with 100 far jobs, {how}"
    return f"{title}\n\n" + _table([*head, "durability seen"], rows)


_SECTIONS: dict[str, Callable[[Result], str]] = {
    "lateness": _lateness,
    "drain": _drain,
    "groups": _groups,
    "together": _together,
    "enqueue": _enqueue,
    "crash": _crash,
    "elsewhere": _elsewhere,
    "idle": _idle,
}
