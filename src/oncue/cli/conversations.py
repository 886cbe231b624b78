"""``oncue conversations``: who is asked what, why it stands still, and putting it right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, fail, opened, operating, run
from oncue.cli.common import who as acting
from oncue.cli.output import clean, moment, on_terminal, plain, record_of, show, tell, to_json
from oncue.cli.talks import STEERING, channel, chat, conversations_of, find_person, people_of, who
from oncue.store.chats import ChatState, PersonRow, StepRow

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.standing import Channels, Disabled
    from oncue.operate.views import TalkLife, TalkSummary
    from oncue.store.chats import Standing
    from oncue.store.steps.chats import Loaded


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
@channel
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only numbers below this one: the next page.")
@database
@as_json
def list_(
    conversation: str | None,
    state: str | None,
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
            cursor = None if before is None else str(before)
            while len(found) < limit:
                page = await operator.talks(
                    state, conversation, cursor=cursor, limit=limit - len(found), channel=channel
                )
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

    async def work() -> tuple[TalkLife, Loaded, int, bool]:
        async with operating(database) as operator:
            them, hides = conversations_of(operator.app), "text" in operator.app.redacted
            return await operator.talk(chat), await them.show(chat), await them.duplicates(chat), hides

    life, loaded, again, hides = run(work())
    steps = [_step(step, hides) for step in loaded.steps]
    if as_json:
        click.echo(to_json({**msgspec.to_builtins(life), "duplicates": again, "steps": steps}))
        return
    for name, value in _record(life.conversation, False).items():
        if value is not None:
            click.echo(f"{name.removesuffix('_at')}\t{plain(value)}")
    click.echo(f"why\t{plain(life.why)}")
    if loaded.message is not None and loaded.open is not None:
        reason = f": {plain(loaded.message.reason)}" if loaded.message.reason and not hides else ""
        click.echo(f"its message\t{loaded.message.state}{reason}")
    if again:
        click.echo(f"duplicates\t{again}")
    if life.error:
        click.echo(clean(life.error), err=True)
    shown = [{**step, "value": step["waits"] or step["value"]} for step in steps]
    show(shown, ("name", "kind", "state", "value", "opened_at", "done_at"), False, empty="no step was reached yet")


def _step(step: StepRow, hides: bool) -> dict[str, Any]:
    from oncue.conversation.timeline import waits_of
    from oncue.redaction import HIDDEN

    value = None if step.value is None or step.state == "open" else msgspec.json.decode(step.value)
    return {
        "name": step.name, "kind": step.kind, "state": step.state,
        "value": value if value is None or not hides else HIDDEN,
        "waits": waits_of(step) if step.state == "open" else None,
        "opened_at": moment(step.opened_at), "done_at": moment(step.done_at),
    }  # fmt: skip


@conversations.command(short_help="Show whether each channel sends, and why not.")
@database
@as_json
def channels(database: str | None, as_json: bool) -> None:
    """Show how each channel stands: whether it sends, and why not; when it was heard; messages that went out twice."""

    async def work() -> list[Standing]:
        async with opened(database) as app:
            return await _channels(app).list()

    rows = run(work())
    records = [_standing(row) for row in rows]
    columns = ("channel", "sends", "since", "reason", "heard_at", "disabled", "unknown", "duplicates")
    show(records, columns, as_json, empty="no channel has sent or heard anything yet")
    for row in rows if not as_json else ():
        if row.paused_at is not None:
            first = "Put right what its reason says, then: " if row.stopped is not None else "To send again: "
            click.echo(f"{row.name}: nothing is lost. {first}oncue queues resume {row.name}.send", err=True)


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

    async def work() -> Any:
        async with opened(database) as app:
            people = people_of(app)
            return await people.file((await find_person(people, person, channel)).id)

    from oncue.conversation.timeline import duplicates
    from oncue.conversation.timeline import timeline as timeline_of

    file = run(work())
    records = [{**msgspec.to_builtins(one), "at": moment(one.at)} for one in timeline_of(file, redact=redact)]
    show(records, ("at", "who", "kind", "text"), as_json, empty="nothing yet")
    if (again := duplicates(file)) and not as_json:
        click.echo(f"{again} of the messages reached this person a second time.", err=True)


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


def _standing(row: Standing) -> dict[str, Any]:
    """Return how a channel stands, in words."""
    from oncue.conversation.standing import disabled_of

    names = [f"{one.template} {one.language}" for one in disabled_of(row)]
    told: dict[str, Any] = {"sends": "yes", "reason": ""}
    if row.stopped is not None and row.paused_at is not None:
        told = {"sends": "stopped", "since": moment(row.stopped_at), "reason": row.stopped}
    elif row.paused_at is not None:
        told = {"sends": "paused", "since": moment(row.paused_at), "reason": "its queue was paused"}
    elif row.wait_until is not None and row.wait_until > time.time_ns() // 1000:
        told = {"sends": "waits", "reason": f"the messenger asked it to wait until {moment(row.wait_until)}"}
    return {
        "channel": row.name, "since": None, **told, "heard_at": moment(row.heard_at), "seen_at": moment(row.seen_at),
        "disabled": names, "unknown": row.unknown, "duplicates": row.duplicates,
    }  # fmt: skip


def _record(row: TalkSummary, as_json: bool) -> dict[str, Any]:
    """Return a conversation as the HTTP API has it; to be read by a person, with ``p17`` as commands take it."""
    record = record_of(row)
    return record if as_json else {**record, "person": f"p{row.person}"}
