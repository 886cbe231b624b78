"""SIGKILL at every point where a message or an answer changes hands: people see each question once, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oncue.whatsapp.simulator import Webhooks
from tests.crash.talk.program import POINTS
from tests.crash.talk.stage import people, talk
from tests.databases import Backend

QUICK = Webhooks(retry_first=0.2, retry_most=1.0)


@pytest.mark.timeout(240)
async def test_killed_at_each_named_point_in_turn_nobody_misses_or_gets_twice(tmp_path: Path, backend: Backend) -> None:
    options: dict[str, Any] = {"questions": 2 * len(POINTS), "reconcile_for": 2.0}
    async with talk(tmp_path, backend.url, people(4), webhooks=QUICK, **options) as one:
        # By the time of the first kill everybody has begun; each life sees several messages through.
        for number, point in enumerate(POINTS):
            await one.start(point, nth=3)
            if number == 0:
                await one.subscribe()
                one.begin()
            await one.dies(point)
        await one.start()
        await one.finished()
        verdict = one.verdict()
        assert verdict.clean, verdict
        assert not verdict.doubled, verdict


async def test_where_no_status_arrives_a_question_of_unknown_outcome_is_sent_once_more(
    tmp_path: Path, backend: Backend
) -> None:
    """Accepted, the worker killed before it could note it, and every status lost: the one case of a duplicate."""
    lost = Webhooks(statuses_lost=1.0, retry_first=0.2, retry_most=1.0)
    # Whoever answered the first copy would have shown that it came.
    everybody = people(1, ignores={1})
    async with talk(tmp_path, backend.url, everybody, webhooks=lost, questions=2, reconcile_for=1.0) as one:
        await one.start("accepted, not recorded", nth=1)
        await one.subscribe()
        one.begin()
        await one.dies("accepted, not recorded")
        await one.start()
        await one.finished()
        verdict = one.verdict()
        assert verdict.clean, verdict
        assert verdict.doubled == {(everybody[0].key, "Question 1?"): 1}
