"""How the queues of one worker share its places: weights, and whose turn it is in a claim. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Lane = tuple[str, int, int, int]
"""A queue, a priority in it, when its first job may be claimed, and whether that one is bound; see ``Peek``."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Each queue's share of a worker's starts, exact to one job however few are claimed at a time.

    Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", 1996): each start moves its queue's tag on
    by 1/weight, and the next place goes to the queue with the lowest tag. A queue that had nothing due meanwhile
    starts where the others are: it saves nothing up, and owes nothing. ``ahead`` is how far each tag is beyond the
    last start; what isn't in it is at 0.
    """

    weights: Mapping[str, float]
    ahead: Mapping[str, float] = field(default_factory=dict)

    def quotas(self, queues: Iterable[str], count: int, taken: Mapping[str, int]) -> dict[str, int]:
        """Share ``count`` places out among queues that all have jobs, the most urgent first; in this claim they have
        ``taken`` some already."""
        tags = [
            (self.ahead.get(queue, 0.0) + taken.get(queue, 0) / self.weights[queue], place, queue)
            for place, queue in enumerate(queues)
        ]
        if len(tags) == 1:
            return {tags[0][2]: count}
        heapq.heapify(tags)
        quotas: Counter[str] = Counter()
        for _ in range(count):
            tag, place, queue = tags[0]
            quotas[queue] += 1
            heapq.heapreplace(tags, (tag + 1 / self.weights[queue], place, queue))
        return quotas

    def after(self, queues: Iterable[str]) -> Shares:
        """Return the shares after jobs of these queues, one entry a job, have started."""
        taken = Counter(queues)
        if not taken:
            return self
        last = max(self.ahead.get(queue, 0.0) + (count - 1) / self.weights[queue] for queue, count in taken.items())
        tags = {
            queue: self.ahead.get(queue, 0.0) + taken[queue] / self.weights[queue] for queue in {*self.ahead, *taken}
        }
        return Shares(self.weights, {queue: tag - last for queue, tag in tags.items() if tag > last})


class Turns:
    """Whose turn it is while one claim fills its places. Without shares, lane after lane, the most urgent first.

    ``taken``: what each queue got already, where a claim goes on that began elsewhere.
    """

    def __init__(self, due: Sequence[Lane], shares: Shares | None, taken: Mapping[str, int] | None = None) -> None:
        self.left = list(due)
        """The lanes that may have more jobs that are due."""
        self._shares = shares
        self._taken: Counter[str] = Counter(taken)
        self._kept: set[str] = set()
        self._quotas: dict[str, int] = {}

    def pick(self, free: int) -> tuple[Lane, int] | None:
        """Return a lane, and how many jobs to take from it; None where no place is free or no lane is left."""
        if free <= 0 or not self.left:
            return None
        if self._shares is None:
            return self.left[0], free
        lane = self._with_quota()
        if lane is None and any(self._quotas[queue] > 0 for queue in self._kept):
            return None
        if lane is None:
            # What some queues did not use is shared out among the others.
            queues = dict.fromkeys(lane[0] for lane in self.left)
            self._quotas = self._shares.quotas(queues, free, self._taken)
            lane = self._with_quota()
        assert lane is not None
        return lane, min(free, self._quotas[lane[0]])

    def _with_quota(self) -> Lane | None:
        return next((lane for lane in self.left if self._quotas.get(lane[0], 0) > 0), None)

    def keep(self, lane: Lane) -> None:
        """Keep for its queue what is left of its share: a lane has more that can't be taken here."""
        if self._shares is not None:
            self._kept.add(lane[0])

    def took(self, lane: Lane, count: int, *, more: bool) -> None:
        """Note how many were taken from a lane, and whether it may have more."""
        if not more:
            self.left.remove(lane)
        if self._shares is not None:
            self._taken[lane[0]] += count
            self._quotas[lane[0]] -= count
