"""OnCue's own aims, and what far jobs cost it, as rows for the table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Figures = dict[str, dict[str, list[dict[str, Any]]]]

_Aim = tuple[str, str, str, float, str]

# What, the work and its figure, the bar, and whether the figure may be at most or must be at least that.
_AIMS: tuple[_Aim, ...] = (
    ("lateness p50, ms", "lateness", "p50", 1.5, "<="),
    ("lateness p99, ms", "lateness", "p99", 5.0, "<="),
    ("started early", "lateness", "early", 0, "<="),
    ("drain, jobs/s", "drain", "per_s", 40_000, ">="),
    ("single schedule() calls/s", "enqueue", "single_per_s", 15_000, ">="),
    ("schedule_many, jobs/s", "enqueue", "bulk_per_s", 80_000, ">="),
    ("idle, CPU s", "idle", "cpu_s", 0.1, "<="),
    ("all 100 completed after the restart, s", "crash", "seconds", 2.0, "<="),
)
_FAR_AIMS: tuple[_Aim, ...] = (
    ("far: peak memory in the drain, MB", "drain", "memory_mb", 150, "<="),
    ("far: start-up to the first job, s", "start", "seconds", 1.0, "<="),
)
_POSTGRES_AIMS: tuple[_Aim, ...] = (
    ("lateness p50, ms", "lateness", "p50", 2.0, "<="),
    ("lateness p99, ms", "lateness", "p99", 8.0, "<="),
    ("started early", "lateness", "early", 0, "<="),
    ("drain, jobs/s", "drain", "per_s", 40_000, ">="),
    ("single schedule() calls/s, 50 callers", "enqueue", "single_per_s", 15_000, ">="),
    ("schedule_many, jobs/s", "enqueue", "bulk_per_s", 80_000, ">="),
    ("idle for 180 s, queries", "idle", "statements", 72, "<="),
    ("idle for 180 s, CPU s", "idle", "cpu_s", 0.3, "<="),
    ("all 100 completed after the restart, s", "crash", "seconds", 2.0, "<="),
    ("all 100 completed elsewhere (lease of 10 s + 2 s), s", "elsewhere", "seconds", 12.0, "<="),
)
_REDIS_AIMS: tuple[_Aim, ...] = (
    ("lateness p99, ms", "lateness", "p99", 10.0, "<="),
    ("started early", "lateness", "early", 0, "<="),
    ("drain, jobs/s", "drain", "per_s", 25_000, ">="),
    ("all 100 completed after the restart, s", "crash", "seconds", 2.0, "<="),
    ("all 100 completed elsewhere (lease of 10 s + 1 s), s", "elsewhere", "seconds", 11.0, "<="),
)
_POSTGRES_FAR_RATIO = 1.1
_FAR_RATIO = 1.2
_SAME = 0.02  # seconds of CPU: two ticks of the clock that counts them


def _median(figures: Figures, work: str, label: str, key: str) -> float | None:
    values = [run[key] for run in figures.get(work, {}).get(label, []) if run.get(key) is not None]
    return median(values) if values else None


def _far_label(figures: Figures) -> str | None:
    for labels in figures.values():
        for label in labels:
            if label.startswith("oncue +"):
                return label
    return None


def _row(what: str, value: float | None, bar: float, sign: str, unit: str = "") -> list[str]:
    met = value is not None and (value <= bar if sign == "<=" else value >= bar)
    found = "never" if value is None else f"{value:,.2f}"
    return [what, f"{sign} {bar:,g}{unit}", found, "yes" if met else "**NO**"]


def _plain_rows(figures: Figures, aims: Sequence[_Aim], label: str | None) -> list[list[str]]:
    """The aims that were measured."""
    rows = []
    for what, work, key, bar, sign in aims:
        if label is not None and figures.get(work, {}).get(label):
            rows.append(_row(what, _median(figures, work, label, key), bar, sign))
    return rows


def target_rows(suite: str, figures: Figures) -> list[list[str]]:
    """One row an aim: the bar, what was found and whether it is met."""
    return {"sqlite": _sqlite_rows, "postgres": _postgres_rows, "redis": _redis_rows}[suite](figures)


def _redis_rows(figures: Figures) -> list[list[str]]:
    """OnCue with its own timers on, which it has by default; it is to drain faster than BullMQ for Node."""
    rows = _plain_rows(figures, _REDIS_AIMS, "oncue")
    ours, theirs = (_median(figures, "drain", label, "per_s") for label in ("oncue", "bullmq-node"))
    if ours and theirs:
        rows.append(_row("drain against BullMQ for Node", ours / theirs, 1.0, ">=", " times"))
    return rows


def _sqlite_rows(figures: Figures) -> list[list[str]]:
    rows = _plain_rows(figures, _AIMS, "oncue") + _plain_rows(figures, _FAR_AIMS, _far_label(figures))
    own_bars = {what.removeprefix("far: ") for what, *_ in _FAR_AIMS}
    for what, _, _, ratio in _far_pairs(figures):
        if what not in own_bars:
            rows.append(_row(f"far: {what}", ratio, _FAR_RATIO, "<=", " times worse"))
    return rows


def _postgres_rows(figures: Figures) -> list[list[str]]:
    rows = _plain_rows(figures, _POSTGRES_AIMS, "oncue")
    plain = _median(figures, "drain", "oncue", "per_s")
    for label in figures.get("drain", {}):
        loaded = _median(figures, "drain", label, "per_s")
        if label.startswith("oncue +") and plain and loaded:
            what = f"drain, {label.removeprefix('oncue + ')}"
            rows.append(_row(what, plain / loaded, _POSTGRES_FAR_RATIO, "<=", " times worse"))
    runs = figures.get("together", {}).get("oncue", [])
    if runs:
        (one, *_, many) = (median(run[processes]["per_s"] for run in runs) for processes in runs[0])
        rows.append(_row("many worker processes against one, jobs/s", many / one, 1.0, ">=", " times"))
    return rows


def _far_pairs(figures: Figures) -> list[tuple[str, float, float, float]]:
    far = _far_label(figures)
    pairs = []
    for what, work, key, _, sign in _AIMS + _FAR_AIMS:
        plain = _median(figures, work, "oncue", key)
        loaded = _median(figures, work, far, key) if far else None
        if plain is None or loaded is None or key == "early":
            continue
        if key == "cpu_s" and abs(loaded - plain) <= _SAME:
            ratio = 1.0
        else:
            ratio = loaded / max(plain, 1e-9) if sign == "<=" else plain / max(loaded, 1e-9)
        pairs.append((what.removeprefix("far: "), plain, loaded, ratio))
    return pairs


def far_rows(figures: Figures) -> Sequence[list[str]]:
    """Without and with the far jobs, and how many times worse."""
    return [
        [what, f"{plain:,.2f}", f"{loaded:,.2f}", f"{ratio:.2f} x"]
        for what, plain, loaded, ratio in _far_pairs(figures)
    ]
