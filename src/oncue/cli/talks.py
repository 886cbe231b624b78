"""``oncue conversations pause``, ``resume``, ``restart``, ``stop``, ``takeover``, ``release`` and ``say``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from oncue.cli.common import as_json, fail, load_app, run
from oncue.cli.common import who as acting
from oncue.cli.output import tell

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.care import People
    from oncue.conversation.operate import Conversations
    from oncue.operate.talks import TalkAction
    from oncue.store.chats import PersonRow

T = TypeVar("T")

chat = click.argument("chat", type=click.IntRange(1))
application = click.argument("app")
who = click.argument("person")
channel = click.option("--channel", help="The channel, where a name is known on several.")


@click.command()
@application
@chat
@click.option("--reason", default="paused by an operator", show_default=True, help="Kept in the timeline.")
@as_json
def pause(app: str, chat: int, reason: str, as_json: bool) -> None:
    """Send nothing more and go on with nothing until resumed; what the person writes is kept."""
    _steer(app, lambda them: them.pause(chat, reason))
    _tell("pause", f"{chat}\tpaused", as_json, chat=chat)


@click.command()
@application
@chat
@as_json
def resume(app: str, chat: int, as_json: bool) -> None:
    """Go on where a conversation was paused or parked: what failed is tried anew."""
    _steer(app, lambda them: them.resume(chat))
    _tell("resume", f"{chat}\tresumed", as_json, chat=chat)


@click.command()
@application
@chat
@as_json
def restart(app: str, chat: int, as_json: bool) -> None:
    """End a conversation and begin it anew with the same person; prints the new one's number."""
    new = _steer(app, lambda them: them.restart(chat))
    _tell("restart", f"{chat}\trestarted as {new}", as_json, chat=chat, new=new)


@click.command()
@application
@chat
@click.option("--reason", default="stopped by an operator", show_default=True, help="Kept in the timeline.")
@as_json
def stop(app: str, chat: int, reason: str, as_json: bool) -> None:
    """End a conversation for good."""
    _steer(app, lambda them: them.stop(chat, reason))
    _tell("stop", f"{chat}\tstopped", as_json, chat=chat)


@click.command()
@application
@who
@channel
@as_json
def takeover(app: str, person: str, channel: str | None, as_json: bool) -> None:
    """Have a human look after a person: the conversation waits, and nothing is sent by itself."""
    found = _find_in(app, person, channel)
    _steer(app, lambda them: them.takeover(found.id))
    text = f"p{found.id}\ttaken over; `oncue conversations release` gives them back"
    _tell("takeover", text, as_json, person=found.id)


@click.command()
@application
@who
@channel
@as_json
def release(app: str, person: str, channel: str | None, as_json: bool) -> None:
    """Give a person back to the bot: the conversation goes on where it was."""
    found = _find_in(app, person, channel)
    _steer(app, lambda them: them.release(found.id))
    _tell("release", f"p{found.id}\treleased", as_json, person=found.id)


@click.command()
@application
@who
@click.argument("text")
@channel
@as_json
def say(app: str, person: str, text: str, channel: str | None, as_json: bool) -> None:
    """Send a text of yours to a person whom you have taken over, within the window for free-form messages."""
    found = _find_in(app, person, channel)
    _steer(app, lambda them: them.note(found.id, text))
    later = f"`oncue conversations timeline p{found.id}` tells what becomes of it"
    said = {"done": True, "text": f"It goes out to person {found.id}; {later}."}
    tell(said, f"p{found.id}\tit goes out; {later}", as_json)


def _tell(action: TalkAction, text: str, as_json: bool, **about: int) -> None:
    """Print the text, or what the HTTP API answers to the same."""
    from oncue.operate.talks import SAID

    tell({"done": True, "text": SAID[action].format(**about)}, text, as_json)


STEERING = (pause, resume, restart, stop, takeover, release, say)


# Other commands need not wait until all of this is loaded.
def conversations_of(app: OnCue) -> Conversations:
    """Return an application's conversations, on behalf of who runs the command."""
    from oncue.conversation.operate import Conversations

    return Conversations(app, acting())


def people_of(app: OnCue) -> People:
    """Return those an application talks with, on behalf of who runs the command."""
    from oncue.conversation.care import People

    return People(app, acting())


def _steer(target: str, action: Callable[[Conversations], Awaitable[T]]) -> T:
    app = load_app(target)

    async def work() -> T:
        async with app:
            return await action(conversations_of(app))

    return run(work())


def _find_in(target: str, person: str, channel: str | None) -> PersonRow:
    app = load_app(target)

    async def work() -> PersonRow:
        async with app:
            return await find_person(people_of(app), person, channel)

    return run(work())


async def find_person(people: People, person: str, channel: str | None) -> PersonRow:
    """Return the one person who is named; where there is none, or are several, end and say so."""
    found = await people.find(person, channel)
    if not found:
        where = f" on {channel}" if channel else ""
        fail(f"Nobody is known as {person!r}{where}. Give a phone number with its country code, an id, or p17.")
    if len(found) > 1:
        several = ", ".join(f"p{one.id} on {one.channel}" for one in found)
        fail(f"{person!r} fits several: {several}. Give one of these, or --channel.")
    return found[0]
