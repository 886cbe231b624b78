"""What jobs wait behind, however many groups there are."""

from __future__ import annotations

import pytest

from oncue import OnCue
from oncue.operate import Operator
from oncue.store import Claim, WorkerRow

S = 1_000_000


async def test_of_many_blockers_those_are_told_behind_which_most_wait(
    app: OnCue, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.operate.flows._MOST_BLOCKERS", 2)
    note, first = app.tasks["note"], {}
    for group, count in (("a", 2), ("b", 4), ("c", 3)):
        first[group] = (await app.schedule(note.call(), group=group)).id
        for _ in range(count - 1):
            await app.schedule(note.call(), group=group)
    now = app.clock.now()
    worker, _ = await app.store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + 60 * S))
    assert len((await app.store.claim(Claim(worker, now, now, 60 * S, 9))).jobs) == 3
    found = await operator.flows.blockers()
    assert [(one.name, one.waiting, one.job, one.state) for one in found] == [
        ("group:b", 3, first["b"], "running"),
        ("group:c", 2, first["c"], "running"),
    ]
