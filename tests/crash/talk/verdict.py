"""Counting in the simulator's ledger what people saw: lost, doubled, out of order, overlapping."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]
_QUESTION = re.compile(r"Question (\d+)\?")


@dataclass(slots=True)
class Verdict:
    """What went wrong at the ledger. ``doubled`` are (person, text) that were accepted more than once."""

    lost: list[tuple[str, int]] = field(default_factory=list)
    out_of_order: list[tuple[str, list[int]]] = field(default_factory=list)
    overlapping: list[tuple[str, int]] = field(default_factory=list)
    """Questions that were accepted before the one before them was answered."""
    unfinished: list[str] = field(default_factory=list)
    doubled: Counter[tuple[str, str]] = field(default_factory=Counter)
    unexplained: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of the doubled, those of whose earlier copy we had a status before the later one: these must not be."""

    @property
    def clean(self) -> bool:
        """Nothing lost, out of order or overlapping, nothing doubled that the resend rule doesn't allow."""
        return not (self.lost or self.out_of_order or self.overlapping or self.unfinished or self.unexplained)

    def __str__(self) -> str:
        return (
            f"lost {len(self.lost)}, out of order {len(self.out_of_order)}, overlapping {len(self.overlapping)}, "
            f"unfinished {len(self.unfinished)}, doubled {self.doubled.total()}, of these unexplained "
            f"{self.unexplained.total()}"
        )


def judge(events: Iterable[Event], people: Iterable[str], questions: int) -> Verdict:
    """Judge what the simulator accepted for these people."""
    of_person: dict[str, list[Event]] = defaultdict(list)
    heard: dict[str, int] = {}
    for event in events:
        if event["event"] in ("accepted", "said"):
            of_person[event["person"]].append(event)
        elif event["event"] == "webhook" and event.get("status") == 200 and not event.get("forged"):
            # A POST carries the statuses of several messages; only one that we answered with 200 counts as heard.
            for label in event["items"]:
                if label.startswith(("sent:", "delivered:", "read:")):
                    heard.setdefault(label.partition(":")[2], event["n"])
    verdict = Verdict()
    for person in people:
        accepted = [event for event in of_person[person] if event["event"] == "accepted"]
        _judge_order(verdict, person, accepted, questions)
        _judge_answers(verdict, person, of_person[person])
        _judge_copies(verdict, person, accepted, heard)
    return verdict


def _judge_order(verdict: Verdict, person: str, accepted: Sequence[Event], questions: int) -> None:
    numbers = [int(found[1]) for one in accepted if (found := _QUESTION.fullmatch(one["text"]))]
    verdict.lost += [(person, number) for number in range(1, questions + 1) if number not in numbers]
    if numbers != sorted(numbers):
        verdict.out_of_order.append((person, numbers))
    if not any(one["text"] == "Done." for one in accepted):
        verdict.unfinished.append(person)


def _judge_answers(verdict: Verdict, person: str, events: Sequence[Event]) -> None:
    asked = 0
    answered = True
    for event in events:
        if event["event"] == "said":
            # What came in late from before doesn't answer anything.
            answered |= "age" not in event
        elif (found := _QUESTION.fullmatch(event["text"])) and int(found[1]) != asked:
            if not answered:
                verdict.overlapping.append((person, int(found[1])))
            asked, answered = int(found[1]), False


def _judge_copies(verdict: Verdict, person: str, accepted: Sequence[Event], heard: Mapping[str, int]) -> None:
    copies: dict[str, list[Event]] = defaultdict(list)
    for one in accepted:
        if any(heard.get(earlier["wamid"], one["n"]) < one["n"] for earlier in copies[one["text"]]):
            verdict.unexplained[person, one["text"]] += 1
        if copies[one["text"]]:
            verdict.doubled[person, one["text"]] += 1
        copies[one["text"]].append(one)
