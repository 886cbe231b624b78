"""Counts in the stand-in's ledger what people really received. The application's own tables are not asked."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUESTION = re.compile(r"Question (\d+) of \d+: ")
MICROS = 1_000_000


@dataclass(slots=True)
class Report:
    """What a ledger shows. Lateness in milliseconds: arrival at the stand-in minus the due time that was asked for."""

    expected: int
    questions: int = 0
    doubled: int = 0
    out_of_order: int = 0
    too_early: int = 0
    answers: int = 0
    reminders: int = 0
    reminders_called_off: int = 0
    refused: int = 0
    lateness: list[float] = field(default_factory=list)
    lateness_outage: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Questions that never arrived."""
        return self.expected - self.questions

    @property
    def good(self) -> bool:
        """Nothing lost, doubled, out of order or before its time."""
        return not (self.lost or self.doubled or self.out_of_order or self.too_early)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The ledger's events. A last line that is still being written is left for the next time."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def count(events: Iterable[dict[str, Any]], expected: int, outage_us: tuple[int, int] | None = None) -> Report:
    """Count ``events``, of which ``expected`` different questions should be there.

    A message doubles another where the same person reads the same text twice. A question is out of order where the one
    before it has not arrived, or has not been answered. ``outage_us`` is when the worker was down: the lateness of
    whatever was due or under way in that span is kept apart.
    """
    report = Report(expected)
    read: dict[str, set[str]] = defaultdict(set)  # what each person has received
    asked: dict[str, int] = defaultdict(int)  # how many different questions
    answered: dict[str, int] = defaultdict(int)  # the last of them that was answered
    reminded: set[tuple[str, int]] = set()
    for event in events:
        if event["event"] == "refused":
            report.refused += 1
        elif event["event"] == "answered":
            who = event["sender"]
            if asked[who] > answered[who]:
                answered[who] = asked[who]
                report.answers += 1
                report.reminders_called_off += (who, asked[who]) not in reminded
        elif event["event"] == "accepted":
            who, text = event["to"], event["body"]
            if text in read[who]:
                report.doubled += 1
                continue
            read[who].add(text)
            if question := QUESTION.match(text):
                report.questions += 1
                report.out_of_order += not (int(question[1]) == asked[who] + 1 and answered[who] == asked[who])
                asked[who] += 1
                _measure(report, event, outage_us)
            else:
                report.reminders += 1
                reminded.add((who, asked[who]))
    return report


def _measure(report: Report, event: dict[str, Any], outage_us: tuple[int, int] | None) -> None:
    due, at = due_us(event), int(event["at_us"])
    report.too_early += at < due
    touched = outage_us is not None and due < outage_us[1] and at > outage_us[0]
    (report.lateness_outage if touched else report.lateness).append((at - due) / 1000)


def due_us(event: dict[str, Any]) -> int:
    """When the message was due, in microseconds since the epoch: the application writes it into its echo."""
    return int(event["echo"].rsplit(":", 1)[1])


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
