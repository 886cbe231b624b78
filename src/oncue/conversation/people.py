"""Who wrote: people are found by either of their names, and two who turn out to be one become one.

A person of a channel has an address (a ``wa_id``), the provider's id (a BSUID), or both. What comes in may name one of
them or both; where both are known, but of two different people, these are the same one, seen once by each name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from oncue.store.chats import PersonRow, one
from oncue.store.steps import Steps, as_json, ask, fetch, run
from oncue.transport import Address, Inbound, Preference

# What the timeline says of names; see names_in.
_NAMED = re.compile(
    r"the (?:address|user id) changed from (.+) to (.+)|the address (.+) is another person's now"
    r"|known as (.+) and as (.+): one person|the person moved from (.+) to (.+)"
)
_WANTS = "wants marketing"
_WANTS_NONE = "wants no marketing"


@dataclass(frozen=True, slots=True)
class Named:
    """Names by which somebody is spoken of. ``at``: when they wrote (microseconds); None where they did not."""

    who: Address
    at: int | None = None
    name: str | None = None


def sender_of(inbound: Inbound, now: int) -> Named:
    """Return who wrote a message, and when: never for what the messenger itself has to say about somebody."""
    return Named(inbound.sender, None if inbound.kind == "system" else min(inbound.sent_at, now), inbound.name)


@dataclass(frozen=True, slots=True)
class Found:
    """The person behind names. ``same``: another row, which is the same person and is to be merged into this one."""

    id: int
    same: int | None = None

    @property
    def lane(self) -> int:
        """The person in whose lane what came in is to be handled: in that of the row which is to go, it can go."""
        return self.id if self.same is None else self.same


class _Rows:
    """The rows behind some names, by these."""

    def __init__(self, rows: Iterable[PersonRow]) -> None:
        self.by_address: dict[str, PersonRow] = {}
        self.by_user: dict[str, PersonRow] = {}
        for row in rows:
            self.add(row)

    def add(self, row: PersonRow) -> None:
        if row.address is not None:
            self.by_address[row.address] = row
        if row.user_id is not None:
            self.by_user[row.user_id] = row

    def match(self, who: Address) -> tuple[PersonRow | None, PersonRow | None]:
        """Return who has this address and who has this id."""
        # None names nobody.
        return self.by_address.get(who.address or ""), self.by_user.get(who.user_id or "")


def resolve(channel: str, named: Sequence[Named], now: int) -> Steps[list[Found]]:
    """Find the people behind these names, in their order; who is new is stored, and so are new names.

    Names are only changed by what is not older than the last that was heard.
    """
    rows = yield from _load(channel, named)
    found = [_known(rows, one) for one in named]
    if None not in found:
        return [one for one in found if one is not None]
    names = {name for one in named for name in (one.who.address, one.who.user_id) if name is not None}
    yield ask("lock_names", channel=channel, names=as_json(sorted(names)))
    rows = yield from _load(channel, named)
    answer: list[Found] = []
    for wanted in named:
        answer.append((yield from _settle(channel, rows, wanted, now)))  # noqa: PERF401 - nothing else can yield
    return answer


def locate(channel: str, named: Sequence[Named]) -> Steps[list[Found | None]]:
    """Find the people behind these names as far as they are known, without storing anything."""
    rows = yield from _load(channel, named)
    found: list[Found | None] = []
    for wanted in named:
        by_address, by_user = rows.match(wanted.who)
        row = by_user or by_address
        if by_address is not None and by_user is not None and _are_one(by_address, by_user):
            found.append(Found(*sorted((by_address.id, by_user.id))))
        else:
            found.append(None if row is None else Found(row.id))
    return found


def _are_one(by_address: PersonRow, by_user: PersonRow) -> bool:
    """Tell whether two rows are one person, of whom each knows one name, or an older one beside it."""
    return by_address is not by_user and (by_address.user_id is None or by_user.address is None)


def _load(channel: str, named: Iterable[Named]) -> Steps[_Rows]:
    addresses = sorted({one.who.address for one in named if one.who.address is not None})
    user_ids = sorted({one.who.user_id for one in named if one.who.user_id is not None})
    text = yield ask("find_people", channel=channel, addresses=as_json(addresses), user_ids=as_json(user_ids))
    return _Rows(msgspec.json.decode(text, type=list[PersonRow]))


def _known(rows: _Rows, wanted: Named) -> Found | None:
    """Return who this is where nothing has to be stored for that."""
    by_address, by_user = rows.match(wanted.who)
    row = by_user or by_address
    if row is None or (by_address is not None and by_user is not None and by_address is not by_user):
        return None
    who = wanted.who
    same_address = who.address is None or row.address == who.address
    same_user = who.user_id is None or row.user_id == who.user_id
    return Found(row.id) if same_address and same_user else None


def _settle(channel: str, rows: _Rows, wanted: Named, now: int) -> Steps[Found]:
    known = _known(rows, wanted)
    if known is not None:
        return known
    who = wanted.who
    by_address, by_user = rows.match(who)
    if by_address is not None and by_user is not None:
        if _are_one(by_address, by_user):
            return Found(*sorted((by_address.id, by_user.id)))
        return (yield from _move_address(rows, by_address, by_user, wanted))
    row = by_user or by_address
    if row is None:
        id: int = yield ask(
            "add_person", channel=channel, address=who.address, user_id=who.user_id, name=wanted.name, now=now
        )
        rows.add(PersonRow(id, channel, now, who.address, who.user_id, wanted.name))
        return Found(id)
    yield from _rename(row, wanted)
    rows.add(row)
    return Found(row.id)


def _rename(row: PersonRow, wanted: Named, *, wrote: bool = True) -> Steps[None]:
    """Store the names that are new; another one in place of a known one only where it is not older."""
    newer = wanted.at is not None and wanted.at >= (row.heard_at or 0)
    address, user_id = wanted.who.address, wanted.who.user_id
    kept = row.address, row.user_id
    if address is not None and (row.address is None or newer):
        row.address = address
    if user_id is not None and (row.user_id is None or newer):
        row.user_id = user_id
    if (row.address, row.user_id) == kept:
        return
    heard = wanted.at if wrote else None
    if heard is not None:
        row.heard_at = max(row.heard_at or 0, heard)
    yield run("set_names", id=row.id, address=row.address, user_id=row.user_id, at=heard)
    for before, after, word in zip(kept, (row.address, row.user_id), ("address", "user id"), strict=True):
        if before is not None and before != after:
            text = f"the {word} changed from {before} to {after}"
            yield run("inbox_event", person=row.id, at=wanted.at or 0, kind="renamed", text=text)


def learn(person: int, named: Address, now: int) -> Steps[None]:
    """Keep what the messenger calls a person to whom it took a message, so that their answer finds them.

    A name that somebody else has stays theirs: an update that has both names tells whether these two are one.
    """
    row = yield from one(PersonRow, "person_by_id", id=person)
    if row is None:
        return
    names = [name for name in (named.address, named.user_id) if name is not None]
    yield ask("lock_names", channel=row.channel, names=as_json(sorted(names)))
    rows = yield from _load(row.channel, [Named(named)])
    by_address, by_user = rows.match(named)
    address = named.address if by_address is None else None
    user_id = named.user_id if by_user is None and row.user_id is None else None
    if address is not None or user_id is not None:
        yield from _rename(row, Named(Address(address, user_id), max(now, row.heard_at or 0)), wrote=False)


def _move_address(rows: _Rows, holder: PersonRow, owner: PersonRow, wanted: Named) -> Steps[Found]:
    """An address passes from one person, who keeps another id, to another: as numbers do that are given out again."""
    newest = max(holder.heard_at or 0, owner.heard_at or 0)
    if wanted.at is None or wanted.at < newest:
        return Found(owner.id)
    yield run("set_names", id=holder.id, address=None, user_id=holder.user_id, at=None)
    text = f"the address {holder.address} is another person's now"
    yield run("inbox_event", person=holder.id, at=wanted.at, kind="renamed", text=text)
    holder.address = None
    yield from _rename(owner, wanted)
    rows.add(owner)
    return Found(owner.id)


def person(id: int) -> Steps[PersonRow | None]:
    """Return a person, or None where there is none (any more)."""
    return (yield from one(PersonRow, "person_by_id", id=id))


def merge(into: int, gone: int, wanted: Named, now: int, expires_at: int | None) -> Steps[tuple[int, ...]]:
    """Make two people one: all that the second has becomes the first's. Return the live conversations that must end.

    It happens in the lane of the one that goes, so that nothing else of theirs runs meanwhile. Of two live
    conversations the one that changed last goes on; the others' messages are for the caller to withdraw.
    """
    yield ask("hold_people", first=into, second=gone)
    first, second = (yield from person(into)), (yield from person(gone))
    if first is None or second is None:
        return ()
    live = sorted((changed, id) for id, _, changed in (yield from fetch("live_chats_of", first=into, second=gone)))
    ended = tuple(id for _, id in live[:-1])
    for id in ended:
        reason = "the person turned out to be one who is in another conversation"
        yield run("stop_chat", id=id, reason=reason, now=now, expires_at=expires_at)
    yield run("drop_person", id=gone)
    for what in ("chats", "messages", "inbound", "events"):
        yield run(f"repoint_{what}", **{"from": gone, "to": into})
    joined = _joined(first, second)
    names = msgspec.structs.asdict(joined)
    del names["channel"]
    yield run("set_person", **names)
    yield from _rename(joined, wanted)
    yield from _weigh_preferences(into)
    text = f"known as {_shown(first)} and as {_shown(second)}: one person"
    yield run("inbox_event", person=into, at=now, kind="merged", text=text)
    return ended


def move(row: PersonRow, to: Address, now: int, expires_at: int | None) -> Steps[tuple[int, tuple[int, ...]] | None]:
    """Give a person other names in place of all that they had, in their own lane.

    Return who they are now, and the live conversations that must end, as ``merge`` does: where somebody has written
    under the new names already, that is the person. None where the new names are two people's.
    """
    names = sorted(name for name in (to.address, to.user_id) if name)
    yield ask("lock_names", channel=row.channel, names=as_json(names))
    rows = yield from _load(row.channel, [Named(to)])
    others = {one.id: one for one in rows.match(to) if one is not None and one.id != row.id}
    if len(others) > 1:
        return None
    before = _shown(row)
    id, ended = row.id, tuple[int, ...]()
    for other in others.values():
        id, ended = other.id, (yield from merge(other.id, row.id, Named(Address()), now, expires_at))
        to = Address(to.address or other.address, to.user_id or other.user_id)
    yield run("set_names", id=id, address=to.address, user_id=to.user_id, at=None)
    after = " / ".join(name for name in (to.address, to.user_id) if name is not None)
    yield run("inbox_event", person=id, at=now, kind="renamed", text=f"the person moved from {before} to {after}")
    return id, ended


def prefer(person: int, preference: Preference) -> Steps[None]:
    """Record that a person wants marketing, or wants none; the last word by the messenger's clock counts."""
    wish = _WANTS if preference.marketing else _WANTS_NONE
    yield run("preference_event", person=person, at=preference.at, text=wish)
    yield from _weigh_preferences(person)


def _weigh_preferences(person: int) -> Steps[None]:
    last = yield ask("last_preference", person=person, no=_WANTS_NONE)
    if last is not None:
        at, refuses = msgspec.json.decode(last)
        yield run("set_no_marketing", id=person, at=at if refuses else None)


def names_in(text: str) -> list[str]:
    """Return the names in what an event ("renamed", "merged") says."""
    found = _NAMED.fullmatch(text)
    return [] if found is None else [name for part in found.groups() if part for name in part.split(" / ")]


def _joined(first: PersonRow, second: PersonRow) -> PersonRow:
    newer, older = (first, second) if (first.heard_at or 0) >= (second.heard_at or 0) else (second, first)
    return PersonRow(
        id=first.id,
        channel=first.channel,
        created_at=min(first.created_at, second.created_at),
        address=newer.address or older.address,
        user_id=newer.user_id or older.user_id,
        name=newer.name or older.name,
        timezone=newer.timezone or older.timezone,
        heard_at=_last(first.heard_at, second.heard_at),
        # Whoever left under one name, or was taken over, has done so under both.
        opted_out_at=_last(first.opted_out_at, second.opted_out_at),
        no_marketing_at=_last(first.no_marketing_at, second.no_marketing_at),
        stopped=first.stopped if second.stopped is not None else None,
        human_since=_last(first.human_since, second.human_since),
        wait_until=_last(first.wait_until, second.wait_until),
        refusals=max(first.refusals, second.refusals),
    )


def _last(*times: int | None) -> int | None:
    return max((one for one in times if one is not None), default=None)


def _shown(row: PersonRow) -> str:
    return " / ".join(name for name in (row.address, row.user_id) if name is not None)
