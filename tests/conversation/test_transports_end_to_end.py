"""One conversation of three questions over Telegram's stand-in: HTTP both ways, a real worker, every database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from oncue import OnCue
from oncue.conversation import Chat, Conversations, Keyword
from oncue.conversation.care import People
from oncue.telegram import Telegram
from oncue.transport import Template
from oncue.web import webhook_app
from tests.databases import Backend
from tests.telegram.people import Person
from tests.telegram.standin import SECRET, TOKEN, Seen, Standin

ADA = 42


@dataclass(slots=True)
class Stage:
    """A bot that runs, and Ada, who has started it."""

    app: OnCue
    telegram: Standin
    ada: Person
    answers: list[tuple[str, str, str]]
    """(name, level, colour) of each conversation that came to its end."""

    async def shown(self, count: int) -> Sequence[str]:
        """Wait for so many messages; return all texts that Ada has before her."""
        return [seen.text for seen in await self.telegram.wait_for(ADA, count)]

    async def ends(self) -> list[tuple[str, str | None]]:
        """Return (state, reason) of Ada's conversations, the oldest first."""
        return [(chat.state, chat.reason) for chat in reversed(await Conversations(self.app).list())]

    async def timeline(self) -> list[str]:
        """Return what an operator reads of Ada."""
        [person] = await People(self.app).find(str(ADA))
        return [f"{entry.kind}: {entry.text}" for entry in await People(self.app).timeline(person.id)]

    @property
    def last(self) -> Seen:
        return self.telegram.seen_by(ADA)[-1]


@asynccontextmanager
async def stage(backend: Backend, **options: float) -> AsyncIterator[Stage]:
    """Run the bot: its worker, and its intake of updates, to which the stand-in posts."""
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(Standin())
        telegram = Telegram(TOKEN, SECRET, url=standin.url, throughput=1000)
        # Once a second is the limit of the real one; nothing here is about it.
        telegram.pair = None
        app = OnCue(backend.url)
        made = Stage(app, standin, standin.person(ADA), [])
        channel = app.channel(telegram, **options)

        @app.conversation("trial", channel=channel, start=Keyword("start"))
        async def trial(chat: Chat) -> None:
            name = await chat.ask("name", "Hi! What shall I call you?")
            level = await chat.ask("level", f"Hello, {name}. How is your English?", choices=["new", "some", "good"])
            colour = await chat.ask(
                "colour", "Which colour?", check=lambda text: text in ("red", "blue"), retry="Red or blue?"
            )
            await chat.do("keep", lambda: made.answers.append((name, level, colour)))
            # For a messenger with a window; this one has none and never needs it.
            await chat.say("done", "That was it.", template=Template("follow_up"))

        stack.push_async_callback(telegram.close)
        await stack.enter_async_context(app.worker())
        standin.app = webhook_app(app)
        await telegram.set_webhook("http://bot/webhooks/telegram")
        yield made


async def test_three_questions_are_asked_and_answered_in_order(backend: Backend) -> None:
    async with stage(backend) as made:
        assert (await made.ada.write("/start spring26")).status_code == 200
        assert await made.shown(1) == ["Hi! What shall I call you?"]
        await made.ada.write("Ada")
        assert (await made.shown(2))[1:] == ["Hello, Ada. How is your English?"]
        assert [title for title, _ in made.last.buttons] == ["new", "some", "good"]
        await made.ada.choose("some")
        assert (await made.shown(3))[2:] == ["Which colour?"]
        await made.ada.write("green")
        assert (await made.shown(4))[3:] == ["Red or blue?"]
        await made.ada.write("blue")
        assert (await made.shown(5))[4:] == ["That was it."]
        assert made.answers == [("Ada", "some", "blue")]
        # The button that was tapped doesn't wait any more.
        assert not made.ada.waiting
        assert len(made.telegram.answered) == 1


async def test_updates_that_come_twice_are_answered_once(backend: Backend) -> None:
    async with stage(backend) as made:
        for count, text in enumerate(("/start", "Ada"), 1):
            update = made.ada.text(text)
            for _ in range(2):
                assert (await made.telegram.deliver(update)).status_code == 200
            await made.shown(count)
        tap = made.ada.tap(made.last, "new")
        for _ in range(2):
            await made.telegram.deliver(tap)
        await made.shown(3)
        await made.ada.write("red")
        texts = ["Hi! What shall I call you?", "Hello, Ada. How is your English?", "Which colour?", "That was it."]
        assert await made.shown(4) == texts
        assert made.answers == [("Ada", "new", "red")]


async def test_a_question_of_unknown_outcome_is_asked_once_more(backend: Backend) -> None:
    async with stage(backend, reconcile_for=0.2) as made:
        await made.ada.write("/start")
        await made.shown(1)
        made.telegram.fault("accept_reset")
        await made.ada.write("Ada")
        first, second = (await made.telegram.wait_for(ADA, 3))[1:]
        assert first.text == second.text == "Hello, Ada. How is your English?"
        # Whichever is tapped, it answers.
        await made.telegram.deliver(made.ada.tap(first, "good"))
        assert (await made.shown(4))[3:] == ["Which colour?"]
        assert any("resent: no status came for attempt 1" in line for line in await made.timeline())


async def test_a_tap_proves_that_a_question_arrived(backend: Backend) -> None:
    async with stage(backend, reconcile_for=3600) as made:
        await made.ada.write("/start")
        await made.shown(1)
        made.telegram.fault("accept_reset")
        await made.ada.write("Ada")
        await made.shown(2)
        await made.ada.choose("good")
        assert (await made.shown(3))[2:] == ["Which colour?"]
        assert len(made.telegram.ledger) == 3


async def test_who_blocks_the_bot_ends_the_conversation_and_may_come_back(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.ada.write("/start")
        await made.shown(1)
        await made.telegram.deliver(made.ada.block())
        await made.telegram.deliver(made.ada.block(False))
        await made.ada.write("/start")
        assert await made.shown(2) == ["Hi! What shall I call you?"] * 2
        assert await made.ends() == [("stopped", "the person blocked this channel"), ("active", None)]


async def test_who_is_found_to_have_blocked_the_bot_is_left_alone(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.ada.write("/start")
        await made.shown(1)
        # The update that tells of it was lost; the next message is refused.
        made.ada.blocked = True
        await made.ada.write("Ada")
        await made.telegram.asked("sendMessage", 2)
        made.ada.blocked = False
        await made.ada.write("/start")
        await made.shown(2)
        (state, reason), second = await made.ends()
        assert (state, second) == ("stopped", ("active", None))
        assert "bot was blocked by the user" in (reason or "")


async def test_an_edit_answers_nothing(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.ada.write("/start")
        await made.shown(1)
        await made.ada.write("Ada")
        await made.shown(2)
        await made.telegram.deliver(made.ada.edit(3, "good"))
        await made.ada.write("new")
        assert (await made.shown(3))[2:] == ["Which colour?"]
        await made.ada.write("red")
        await made.shown(4)
        assert made.answers == [("Ada", "new", "red")]
