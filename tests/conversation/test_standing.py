"""How channels stand, as operators see and mend it."""

from __future__ import annotations

from oncue.conversation.operate import Conversations
from oncue.conversation.standing import Channels, Disabled
from oncue.store.steps import Steps, manage
from oncue.transport import Answer, Template
from tests.conversation.outbox_stage import Stage, stage
from tests.databases import Backend

HELLO, HALLO = Template("hello", "en"), Template("hello", "de")


async def refused(s: Stage, template: Template) -> str:
    s.messenger.answers = [Answer("disable_template", code=132015, reason=f"{template.language} is paused")]
    ref = await s.queue(await s.person(), content=template)
    await s.drain()
    return ref


async def test_a_template_that_was_put_right_is_used_again(backend: Backend) -> None:
    async with stage(backend) as s:
        await refused(s, HELLO)
        await refused(s, HALLO)
        rooms = Channels(s.app)
        english = Disabled("line", "hello", "en", "en is paused")
        german = Disabled("line", "hello", "de", "de is paused")
        assert await rooms.disabled() == (german, english)
        assert await rooms.disabled("other") == ()
        assert await rooms.enable("hallo") == ()
        assert await rooms.enable("hello", channel="other") == ()
        assert await rooms.enable("hello", "en") == (english,)
        sent = await s.queue(await s.person(), content=HELLO)
        not_sent = await s.queue(await s.person(), content=HALLO)
        await s.drain()
        assert [await s.state(ref) for ref in (sent, not_sent)] == ["accepted", "rejected"]
        assert await rooms.enable("hello") == (german,)
        assert await rooms.disabled() == ()


async def test_a_stopped_channel_says_why_until_it_sends_again(backend: Backend) -> None:
    async with stage(backend) as s:
        s.messenger.answers = [Answer("stop_channel", code=190, reason="the token has expired")]
        begun = s.now
        await s.queue(await s.person())
        await s.drain()
        (row,) = await Channels(s.app).list()
        assert (row.name, row.stopped, row.stopped_at, row.paused_at) == (
            "line",
            "the token has expired (190)",
            begun,
            begun,
        )
        await s.change(lambda: _resume(s))
        await s.advance(61)
        (row,) = await Channels(s.app).list()
        assert (row.stopped, row.paused_at) == (None, None)
        assert len(s.messenger.sent) == 2


def _resume(s: Stage) -> Steps[None]:
    yield from manage.set_queue(s.now, "line.send", False)


async def test_who_resumes_keeps_what_was_learnt_meanwhile(backend: Backend) -> None:
    """The row of a channel is read before it is locked: what others have written to it since then stays."""
    async with stage(backend) as s:
        before = await s.channel_row()
        await refused(s, HELLO)
        before.stopped, before.stopped_at = "the token has expired", None
        await s.change(lambda: s.outbox._sends_again(before))
        assert before.stopped is None
        assert len(await Channels(s.app).disabled()) == 1


async def test_what_went_out_twice_and_what_is_unknown_is_counted(backend: Backend) -> None:
    async with stage(backend) as s:
        (chat,) = (1,)
        await s.sql_run(
            "INSERT INTO oncue_chat (id, conversation, channel, person, state, started_at, changed_at) "
            f"VALUES ({chat}, 'trial', 'line', 1, 'active', 1, 1)"
        )
        s.messenger.answers = [Answer("unknown"), Answer("unknown")]
        twice, failed = [await s.queue(await s.person(), chat=chat) for _ in range(2)]
        await s.drain()
        (row,) = await Channels(s.app).list()
        assert (row.unknown, row.duplicates) == (2, 0)
        for ref, name in ((twice, "a"), (failed, "b")):
            await s.status("sent", f"{name}1", echo=f"v1:{ref}:1")
            await s.status("sent", f"{name}2", echo=f"v1:{ref}:1")
        await s.status("failed", "b2", echo=f"v1:{failed}:1")
        (row,) = await Channels(s.app).list()
        assert (row.unknown, row.duplicates) == (0, 1)
        assert await Conversations(s.app).duplicates(chat) == 1
        assert await Conversations(s.app).duplicates(2) == 0
