"""Who a person is, whichever of their names comes in; and two who turn out to be one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oncue.clock import SECOND
from oncue.store.steps import Steps, run
from oncue.transport import Address, Preference
from tests.conversation.inbox_stage import Stage, inbound, stage, update
from tests.databases import Backend
from tests.store.kit import T0

NAMES = tuple[str | None, str | None]


async def names(made: Stage) -> list[NAMES]:
    return [(one.address, one.user_id) for one in await made.people()]


@pytest.mark.parametrize(
    ("known", "comes", "then"),
    [
        ([("A", None)], ("A", None), [("A", None)]),
        ([(None, "U")], (None, "U"), [(None, "U")]),
        ([("A", None)], ("A", "U"), [("A", "U")]),
        ([(None, "U")], ("A", "U"), [("A", "U")]),
        ([("A", "U")], ("A", None), [("A", "U")]),
        ([("A", "U")], (None, "U"), [("A", "U")]),
        # A new number, a new id.
        ([("A", "U")], ("B", "U"), [("B", "U")]),
        ([("A", "U")], ("A", "V"), [("A", "V")]),
        # Two who were one all along.
        ([("A", None), (None, "U")], ("A", "U"), [("A", "U")]),
        ([(None, "U"), ("A", None)], ("A", "U"), [("A", "U")]),
        # A number that was given out again.
        ([("A", "U"), ("B", "V")], ("A", "V"), [(None, "U"), ("A", "V")]),
        ([("A", "U")], ("B", "V"), [("A", "U"), ("B", "V")]),
    ],
)
async def test_names(backend: Backend, known: list[NAMES], comes: NAMES, then: list[NAMES]) -> None:
    async with stage(backend) as made:
        for number, (address, user_id) in enumerate(known):
            await made.hear(update(inbound(f"k{number}", address=address, user_id=user_id, ago=60)))
        assert await names(made) == known
        await made.hear(update(inbound("m", address=comes[0], user_id=comes[1])))
        assert await names(made) == then
        assert len(made.flow.heard) == len(known) + 1
        assert set((await made.notes()).values()) == {None}
        # And once more, now that all is known.
        await made.hear(update(inbound("n", address=comes[0], user_id=comes[1])))
        assert await names(made) == then


async def test_an_older_message_renames_nobody(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m1", address="B", user_id="U")))
        await made.hear(update(inbound("m2", address="A", user_id="U", ago=100)))
        assert await names(made) == [("B", "U")]
        assert len(made.flow.heard) == 2


async def test_everything_of_both_is_the_first_ones(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m1", "by number", address="A", name="Ann", ago=50)))
        await made.hear(update(inbound("m2", "by id", user_id="U", name="Anna", ago=40)))
        first, second = await made.people()
        backend.execute(
            "INSERT INTO oncue_chat (conversation, channel, person, state, started_at, changed_at) VALUES "
            f"('trial', 'line', {first.id}, 'active', 1, 1), ('trial', 'line', {second.id}, 'active', 1, 2)"
        )
        backend.execute(
            "INSERT INTO oncue_message (ref, channel, person, chat, kind, content, due, created_at, state) VALUES "
            f"""('r1', 'line', {first.id}, 1, 'say', '{{"type":"text","body":"x"}}', {T0 + 10**12}, 1, 'queued'), """
            f"""('r2', 'line', {second.id}, 2, 'say', '{{"type":"text","body":"y"}}', 1, 1, 'accepted')"""
        )
        backend.execute(f"UPDATE oncue_person SET human_since = 9 WHERE id = {second.id}")
        backend.execute(f"INSERT INTO oncue_event (person, at, kind, text) VALUES ({second.id}, 3, 'note', 'x')")

        await made.hear(update(inbound("m3", "go", address="A", user_id="U")))

        (one,) = await made.people()
        assert (one.id, one.address, one.user_id, one.name) == (first.id, "A", "U", "Anna")
        assert (one.heard_at, one.human_since) == (T0, 9)
        for table in ("chat", "message", "inbound", "event"):
            assert await made.rows(f"DISTINCT person FROM oncue_{table}") == [[first.id]], table
        # One of them goes on: the one that moved last.
        assert await made.rows("id, state FROM oncue_chat ORDER BY id") == [[1, "stopped"], [2, "active"]]
        assert await made.rows("ref, state FROM oncue_message ORDER BY ref") == [["r1", "skipped"], ["r2", "accepted"]]
        assert "merged" in await made.events(first.id)
        assert (await made.notes())["m3"] == "a human has taken over"


@pytest.mark.parametrize(("came_back", "out"), [(None, True), ("go", False)])
async def test_who_left_under_one_name_has_left_unless_they_came_back_under_the_other(
    backend: Backend, came_back: str | None, out: bool
) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m1", "stop", address="A", ago=50)))
        await made.hear(update(inbound("m2", came_back or "hi", user_id="U", ago=40)))
        second = (await made.people())[1]
        backend.execute(
            "INSERT INTO oncue_chat (conversation, channel, person, state, started_at, changed_at) VALUES "
            f"('trial', 'line', {second.id}, 'active', 1, 1)"
        )
        await made.hear(update(inbound("m3", "and now?", address="A", user_id="U")))
        (one,) = await made.people()
        assert (one.opted_out_at is not None) == out
        assert await made.rows("state FROM oncue_chat") == [["stopped" if out else "active"]]
        assert (await made.notes())["m3"] == ("the person has opted out" if out else None)


async def test_what_came_in_between_goes_where_it_belongs(backend: Backend) -> None:
    """Jobs that were stored for a person who is merged away by the time that they run."""
    async with stage(backend) as made:
        await made.hear(update(inbound("m1", address="A", ago=9)), update(inbound("m2", user_id="U", ago=8)))
        await made.post(
            update(inbound("m3", "both", address="A", user_id="U", ago=7)),
            update(inbound("m4", "id", user_id="U", ago=6)),
            update(inbound("m5", "number", address="A", ago=5)),
        )
        await made.app.drain()
        (one,) = await made.people()
        assert sorted(made.flow.heard[2:]) == [(one.id, "both"), (one.id, "id"), (one.id, "number")]
        assert set((await made.notes()).values()) == {None}
        assert await made.rows("count(*) FROM oncue_job") == [[0]]


async def test_what_was_erased_stays_so(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.post(update(inbound("m1")))
        (one,) = await made.people()

        def erase() -> Steps[None]:
            yield run("drop_person", id=one.id)

        await made.app.store.change(erase)
        await made.app.drain()
        assert made.flow.heard == []
        assert await made.people() == []
        assert await made.notes() == {"m1": "the person was erased"}


async def test_a_person_who_writes_at_the_same_moment_in_many_updates_is_one(backend: Backend) -> None:
    async with stage(backend) as made:
        shapes: list[dict[str, Any]] = [{"address": "A", "user_id": "U"}] * 4 + [{"address": "B"}] * 4
        await asyncio.gather(
            *(made.post(update(inbound(f"m{number}", **shape))) for number, shape in enumerate(shapes))
        )
        await made.app.drain()
        assert sorted(await names(made), key=str) == [("A", "U"), ("B", None)]
        assert len(made.flow.heard) == 8


async def test_preferences_count_by_the_messengers_clock(backend: Backend) -> None:
    who = Address("A")

    def wish(at: int, marketing: bool) -> Preference:
        return Preference(who, T0 + at * SECOND, marketing)

    async with stage(backend) as made:
        await made.hear(update(preferences=(wish(3, True),)), update(preferences=(wish(1, False),)))
        (one,) = await made.people()
        assert one.no_marketing_at is None
        await made.hear(update(preferences=(wish(5, False), wish(5, True))), update(preferences=(wish(5, False),)))
        assert (await made.person(one.id)).no_marketing_at == T0 + 5 * SECOND
        assert await made.events(one.id) == ["marketing"] * 4
        assert one.heard_at is None
