"""``oncue conversations``: who is asked what, why it stands still, and putting it right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, fail, opened, operating, run
from oncue.cli.common import who as acting
from oncue.cli.output import clean, on_terminal, plain, record_of, show, tell, to_json
from oncue.cli.talks import STEERING, channel, chat, find_person, people_of, who
from oncue.store.chats import ChatState, PersonRow

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.standing import Channels, Disabled
    from oncue.operate.talk_views import ChannelView, PersonLife, TalkLife, TalkSummary


@click.group(cls=Commands)
def conversations() -> None:
    """List conversations, see why one stands still, steer it; a person's timeline, export and erasure.

    CHAT is the number that `list` shows. PERSON is an address (a phone number), the messenger's id of the person, or
    p17 as `list` shows it. Commands that take an APP load it as module:attribute.
    """


for steering in STEERING:
    conversations.add_command(steering)


@conversations.command("list")
@click.option("--conversation", metavar="NAME", help="Only of this name.")
@click.option("--state", type=click.Choice([*get_args(ChatState), "ended"]), help="Only in this state.")
@click.option("--person", metavar="PERSON", help="Only with this person.")
@channel
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only numbers below this one: the next page.")
@database
@as_json
def list_(
    conversation: str | None,
    state: str | None,
    person: str | None,
    channel: str | None,
    limit: int,
    before: int | None,
    database: str | None,
    as_json: bool,
) -> None:
    """List conversations, the newest first."""

    async def work() -> tuple[list[TalkSummary], str | None]:
        async with operating(database) as operator:
            found: list[TalkSummary] = []
            people = people_of(operator.app)
            whose = None if person is None else (await find_person(people, person, channel)).id
            cursor = None if before is None else str(before)
            while len(found) < limit:
                page = await operator.talks(state, conversation, whose, cursor, limit - len(found), channel)
                found, cursor = [*found, *page.items], page.next
                if cursor is None:
                    break
            return found, cursor

    found, more = run(work())
    columns = ("id", "conversation", "channel", "person", "state", "step", "changed_at", "reason")
    show([_record(row, as_json) for row in found], columns, as_json, empty="no conversations")
    if more is not None and on_terminal() and not as_json:
        click.echo(f"There are more: --before {more}", err=True)


@conversations.command("show")
@chat
@database
@as_json
def show_(chat: int, database: str | None, as_json: bool) -> None:
    """Show a conversation: its state and why, its steps with their answers, and what it waits for."""

    async def work() -> TalkLife:
        async with operating(database) as operator:
            return await operator.talk(chat)

    life = run(work())
    if as_json:
        click.echo(to_json(life))
        return
    for name, value in _record(life.conversation, False).items():
        if value is not None:
            click.echo(f"{name.removesuffix('_at')}\t{plain(value)}")
    click.echo(f"why\t{plain(life.why)}")
    if (message := life.message) is not None:
        click.echo(f"its message\t{message.state}{f': {plain(message.reason)}' if message.reason else ''}")
    if life.duplicates:
        click.echo(f"duplicates\t{life.duplicates}")
    if life.error:
        click.echo(clean(life.error), err=True)
    shown = [{**record_of(step), "value": step.waits or step.value} for step in life.steps]
    show(shown, ("name", "kind", "state", "value", "opened_at", "done_at"), False, empty="no step was reached yet")


@conversations.command(short_help="Show whether each channel sends, and why not.")
@database
@as_json
def channels(database: str | None, as_json: bool) -> None:
    """Show how each channel stands: whether it sends, and why not; when it was heard; messages that went out twice."""

    async def work() -> list[ChannelView]:
        async with operating(database) as operator:
            return await operator.channels()

    rows = run(work())
    records = [record_of(row) for row in rows]
    for record, row in zip(records, rows, strict=True):
        if not as_json:
            record["disabled"] = [f"{one.template} {one.language}" for one in row.disabled]
    columns = ("channel", "sends", "since", "reason", "heard_at", "disabled", "unknown", "duplicates")
    show(records, columns, as_json, empty="no channel has sent or heard anything yet")
    for row in rows if not as_json else ():
        if row.sends in ("stopped", "paused"):
            first = "Put right what its reason says, then: " if row.sends == "stopped" else "To send again: "
            click.echo(f"{row.channel}: nothing is lost. {first}oncue queues resume {row.channel}.send", err=True)


@conversations.command(short_help="List disabled templates, or use one again.")
@click.option("--enable", metavar="NAME", help="Use this one again, once it was put right.")
@click.option("--language", metavar="CODE", help="Only in this language.")
@channel
@database
@as_json
def templates(
    enable: str | None, language: str | None, channel: str | None, database: str | None, as_json: bool
) -> None:
    """List the templates that aren't used any more, as the messenger refused them, and why; or use one again.

    What was parked for it is found by `list --state parked`, and goes on with `resume`.
    """

    async def work() -> tuple[Disabled, ...]:
        async with opened(database) as app:
            rooms = _channels(app)
            if enable is not None:
                return await rooms.enable(enable, language, channel=channel)
            return tuple(one for one in await rooms.disabled(channel) if language in (None, one.language))

    found = run(work())
    if enable is not None and not found:
        fail(f"No template {enable!r} is disabled here. `oncue conversations templates` lists those that are.")
    records = [msgspec.to_builtins(one) for one in found]
    if enable is not None and not as_json:
        records = [{**one, "reason": f"enabled; it was: {one['reason']}"} for one in records]
    show(records, ("channel", "template", "language", "reason"), as_json, empty="none is disabled")


@conversations.command()
@who
@channel
@click.option("--redact", is_flag=True, help="Leave out what was said.")
@database
@as_json
def timeline(person: str, channel: str | None, redact: bool, database: str | None, as_json: bool) -> None:
    """Show a person's life here: every message, status, reminder, skip, and why."""

    async def work() -> PersonLife:
        async with operating(database) as operator:
            found = await find_person(people_of(operator.app), person, channel)
            return await operator.person(found.id, redact=redact)

    life = run(work())
    if as_json:
        click.echo(to_json(life))
        return
    show([record_of(one) for one in life.timeline], ("at", "who", "kind", "text"), False, empty="nothing yet")
    if life.duplicates:
        click.echo(f"{life.duplicates} of the messages reached this person a second time.", err=True)


@conversations.command()
@who
@channel
@database
def export(person: str, channel: str | None, database: str | None) -> None:
    """Print all that is kept of a person, as JSON: for someone who asks what is known of them."""

    async def work() -> dict[str, Any]:
        async with opened(database) as app:
            people = people_of(app)
            return await people.export((await find_person(people, person, channel)).id)

    click.echo(to_json(run(work())))


@conversations.command()
@who
@channel
@click.option("--yes", is_flag=True, help="Don't ask.")
@database
@as_json
def erase(person: str, channel: str | None, yes: bool, database: str | None, as_json: bool) -> None:
    """Delete all that is kept of a person, and call off what was to be sent. It can't be undone.

    Raw updates of the last hour go within an hour; backups and the messenger have copies of their own.
    """

    async def find() -> PersonRow:
        async with opened(database) as app:
            return await find_person(people_of(app), person, channel)

    async def work(id: int) -> dict[str, int]:
        async with opened(database) as app:
            return await people_of(app).erase(id)

    found = run(find())
    if not yes:
        click.confirm(f"Delete all that is kept of p{found.id} on {found.channel}?", abort=True)
    gone = run(work(found.id))
    text = ", ".join(f"{count} {name}" for name, count in gone.items() if count)
    tell(gone, f"p{found.id}\terased: {text}", as_json)


# Other commands need not wait until all of this is loaded.
def _channels(app: OnCue) -> Channels:
    from oncue.conversation.standing import Channels

    return Channels(app, acting())


def _record(row: TalkSummary, as_json: bool) -> dict[str, Any]:
    """Return a conversation as the HTTP API has it; to be read by a person, with ``p17`` as commands take it."""
    record = record_of(row)
    return record if as_json else {**record, "person": f"p{row.person}"}
