"""Recording what became of claimed attempts, each named by its claim."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.job import Ack
from oncue.store.steps import Finish, Steps, as_json, fetch, run
from oncue.store.steps.insert import release


def write_acks(worker: int, acks: Sequence[Ack]) -> Steps[list[int]]:
    """Record the outcomes of attempts that ``worker`` holds; return the ids of those it holds no more."""
    lost: list[int] = []
    final = [ack for ack in acks if ack.state != "scheduled"]
    again = [ack for ack in acks if ack.state == "scheduled"]
    if final:
        lost += yield Finish(worker, final)
    if again:
        text = as_json(again)
        if (yield run("record_attempts", acks=text, worker=worker)) != len(again):
            lost += yield from fetch("lost_claims", acks=text, worker=worker)
        yield run("put_back", acks=text, worker=worker)
    names = [name for ack in acks if ack.release for name in ack.release if ack.id not in lost]
    if names:
        yield from release(names)
    return lost
