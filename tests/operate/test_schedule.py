"""What may be asked for by a task's name: the application's own tasks, and nothing that is in a conversation's way."""

from __future__ import annotations

import pytest

from oncue import OnCue
from oncue.errors import InvalidJob, UnknownTask
from oncue.operate import Operator
from oncue.operate.schedule import Wish, offered
from oncue.whatsapp import WhatsApp


@pytest.fixture
def talking(app: OnCue) -> OnCue:
    app.channel(WhatsApp(token="t", phone_number_id="1", app_secret="s", verify_token="v"))
    return app


async def test_nobody_asks_for_the_tasks_of_a_channel(talking: OnCue, operator: Operator) -> None:
    assert "whatsapp.send" in talking.tasks
    for name in ("receive", "status", "send", "advance"):
        with pytest.raises(UnknownTask, match="Known are: again, fail, note"):
            await operator.schedule(Wish(task=f"whatsapp.{name}", args={"ref": "r"}))
    assert sorted(offered(talking)) == ["again", "fail", "note"]


async def test_nobody_gets_in_the_way_of_a_conversation(talking: OnCue, operator: Operator) -> None:
    advance = talking.tasks["whatsapp.advance"]
    id = (await talking.schedule(advance.call(1, 1), key="advance-1", group="whatsapp:1", delay=50)).id
    for wish in (
        Wish(task="note", key="advance-1", on_conflict="replace"),
        Wish(task="note", key="advance-1", on_conflict="reschedule", delay=9000),
        Wish(task="note", group="whatsapp:1"),
    ):
        with pytest.raises(InvalidJob, match="take another one"):
            await operator.schedule(wish, "a-key")
    (job,) = await talking.jobs.list()
    assert (job.id, job.task, job.state, job.key) == (id, "whatsapp.advance", "scheduled", "advance-1")
    assert (await operator.audit()).items == []
    made, new = await operator.schedule(Wish(task="note", key="mine", group="whatsapp-1"), "a-key")
    assert new
    assert await operator.schedule(Wish(task="note", key="mine", group="whatsapp-1"), "a-key") == (made, False)
