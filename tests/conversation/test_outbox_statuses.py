"""Statuses come early, late, twice, in any order, and about what nobody knows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.clock import SECOND
from oncue.conversation.settle import echo_of, read_echo
from oncue.transport import Answer, Outgoing, Template
from tests.conversation.outbox_stage import Stage, stage
from tests.databases import Backend

HELLO = Template("hello", "en")


async def accepted(s: Stage, **options: object) -> str:
    ref = await s.queue(await s.person(), **options)  # type: ignore[arg-type]
    await s.drain()
    assert await s.state(ref) == "accepted"
    return ref


async def test_a_status_without_echo_that_comes_before_our_own_record_is_kept_and_found(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())

        async def early(_: Outgoing) -> Answer:
            await s.status("delivered", "w5")
            await s.status("sent", "w5")
            assert await s.state(ref) == "sending"
            return Answer("sent", "w5")

        s.messenger.answers = [early]
        await s.drain()
        message = await s.message(ref)
        assert (message.state, message.status) == ("accepted", "delivered")
        assert s.flow.told == [("accepted", ref), ("delivered", ref)]
        assert await s.sql("SELECT count(*) FROM oncue_status WHERE message IS NULL") == [(0,)]


async def test_a_status_that_matches_nothing_is_kept(backend: Backend) -> None:
    async with stage(backend) as s:
        await s.status("delivered", "stranger")
        await s.status("delivered", "stranger", echo="v1:nobody:1")
        await s.status("delivered", "other", echo="somebody else's")
        assert await s.sql("SELECT count(*) FROM oncue_status WHERE message IS NULL") == [(2,)]


@pytest.mark.parametrize("order", list(itertools.permutations(["sent", "delivered", "read"])))
async def test_the_highest_status_counts_in_any_order(backend: Backend, order: tuple[str, ...]) -> None:
    async with stage(backend) as s:
        ref = await accepted(s)
        for status in order + order:
            await s.status(status, "w1", echo=f"v1:{ref}:1")
        message = await s.message(ref)
        assert (message.state, message.status) == ("accepted", "read")
        assert s.flow.told == [("accepted", ref), ("delivered", ref)]
        assert await s.sql("SELECT count(*) FROM oncue_status") == [(3,)]


async def test_a_late_failure_is_told_to_the_flow_once(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await accepted(s)
        await s.status("sent", "w1")
        for _ in range(2):
            await s.status("failed", "w1", code=131026, reason="undeliverable", verdict="stop_person")
        message = await s.message(ref)
        assert (message.state, message.status, message.code) == ("rejected", "failed", 131026)
        assert s.flow.told == [("accepted", ref), ("failed", ref, "stop_person")]
        assert (await s.person_row(message.person)).stopped == "undeliverable"


@pytest.mark.parametrize("proof", ["delivered", "read"])
async def test_what_was_delivered_did_not_fail(backend: Backend, proof: str) -> None:
    async with stage(backend) as s:
        before, after = await accepted(s), await accepted(s)
        await s.status(proof, "w1")
        await s.status("failed", "w1", reason="late", verdict="refused")
        assert (await s.message(before)).status == proof
        await s.status("failed", "w2", reason="early", verdict="refused")
        await s.status(proof, "w2")
        message = await s.message(after)
        assert (message.state, message.status) == ("accepted", proof)
        assert s.flow.told.count(("failed", before, "refused")) == 0


async def test_a_late_failure_because_the_window_shut_sends_the_template(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await accepted(s, fallback=HELLO)
        await s.status("failed", "w1", code=131047, verdict="use_template")
        await s.drain()
        assert s.messenger.bodies == ["hello", "hello"]
        assert s.messenger.sent[1].content == HELLO
        message = await s.message(ref)
        assert (message.state, message.external_id, message.as_template) == ("accepted", "w2", 1)
        assert s.flow.told == [("accepted", ref)]
        assert await s.change(s.outbox.duplicates) == []


UNREACHABLE: dict[str, Any] = {"code": 131026, "reason": "undeliverable", "verdict": "stop_person"}
SHUT: dict[str, Any] = {"code": 131047, "reason": "window", "verdict": "use_template"}


@pytest.mark.parametrize("when", ["before", "before, without an echo", "after"])
@pytest.mark.parametrize("failure", [UNREACHABLE, SHUT, {"reason": "no more is said"}], ids=["person", "window", "?"])
async def test_a_failure_means_the_same_before_our_own_record_and_after(
    backend: Backend, when: str, failure: dict[str, Any]
) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), kind="say", fallback=HELLO if failure is SHUT else None)
        echo = None if "without" in when else echo_of(ref, 1)

        async def fails(_: Outgoing) -> Answer:
            if when != "after":
                await s.status("failed", "w1", echo=echo, **failure)
            return Answer("sent", "w1")

        s.messenger.answers = [fails]
        await s.drain()
        if when == "after":
            await s.status("failed", "w1", echo=echo, **failure)
        # Whatever else comes late says nothing new.
        await s.status("sent", "w1", echo=echo_of(ref, 1))
        await s.advance(2)
        message = await s.message(ref)
        assert s.flow.told[0] == ("accepted", ref)
        if failure is SHUT:
            assert s.messenger.bodies == ["hello", "hello"]
            assert (message.state, message.external_id, message.as_template) == ("accepted", "w2", 1)
            assert s.flow.told[1:] == []
        else:
            verdict = failure.get("verdict", "refused")
            assert (message.state, message.status, message.code) == ("rejected", "failed", failure.get("code"))
            assert s.flow.told[1:] == [("failed", ref, verdict)]
            stopped = (await s.person_row(message.person)).stopped
            assert stopped == (failure["reason"] if failure is UNREACHABLE else None)
        assert await s.sql("SELECT count(*) FROM oncue_status WHERE message IS NULL") == [(0,)]


async def test_a_failure_that_was_stored_while_we_stored_our_own_record_is_found_by_the_sweep(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await accepted(s)
        await s.status("failed", "w2", **UNREACHABLE)
        # As if the transaction of this one and that of our own record had not seen each other.
        await s.sql_run("UPDATE oncue_status SET external_id = 'w1'")
        await s.outbox.sweep()
        assert s.flow.told == [("accepted", ref), ("failed", ref, "stop_person")]
        assert await s.sql("SELECT count(*) FROM oncue_status WHERE message IS NULL") == [(0,)]
        await s.outbox.sweep()
        assert len(s.flow.told) == 2


HELD: dict[str, dict[str, Any]] = {
    "person": {"code": 131056, "reason": "pair limit", "verdict": "wait_person"},
    "channel": {"code": 130429, "reason": "throughput", "verdict": "wait_channel"},
    "stop": {"code": 131042, "reason": "unpaid", "verdict": "stop_channel"},
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("failure", HELD.values(), ids=HELD)
async def test_what_was_refused_after_all_but_not_for_good_goes_out_once_more(
    backend: Backend, failure: dict[str, Any], when: str
) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())

        async def fails(_: Outgoing) -> Answer:
            if when == "before":
                await s.status("failed", "w1", echo=echo_of(ref, 1), **failure)
            return Answer("sent", "w1")

        s.messenger.answers = [fails]
        await s.drain()
        for _ in range(2):
            await s.status("failed", "w1", echo=echo_of(ref, 1), **failure)
            await s.status("sent", "w1", echo=echo_of(ref, 1))
        await s.drain()
        assert (await s.state(ref), s.messenger.bodies) == ("queued", ["hello"])
        stops = failure["verdict"] == "stop_channel"
        assert (await s.channel_row()).stopped == ("unpaid (131042)" if stops else None)
        if stops:
            await s.advance(3600)
            assert s.messenger.bodies == ["hello"]
            assert await s.change(lambda: s.outbox.resume(s.now))
        await s.advance(30)
        message = await s.message(ref)
        assert (message.state, message.external_id, s.messenger.bodies) == ("accepted", "w2", ["hello", "hello"])
        assert ("failed", ref, failure["verdict"]) not in s.flow.told
        assert await s.change(s.outbox.duplicates) == []


async def test_a_stop_that_is_told_by_a_status_keeps_the_others_from_being_sent(backend: Backend) -> None:
    async with stage(backend) as s:
        await accepted(s)
        await s.status("failed", "w1", **HELD["stop"])
        other = await s.queue(await s.person())
        await s.advance(600)
        assert (await s.state(other), len(s.messenger.sent)) == ("queued", 1)


async def test_what_is_refused_after_all_again_and_again_fails_in_the_end(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await accepted(s)
        for sent in range(1, 7):
            await s.status("failed", f"w{sent}", echo=echo_of(ref, sent), **HELD["person"])
            await s.advance(1100)
            assert len(s.messenger.sent) == sent + 1
        await s.status("failed", "w7", echo=echo_of(ref, 7), **HELD["person"])
        await s.advance(9999)
        assert (await s.state(ref), len(s.messenger.sent)) == ("rejected", 7)
        assert s.flow.told[-1] == ("failed", ref, "wait_person")


async def test_what_is_not_wanted_any_more_fails_but_stops_the_channel(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await accepted(s)
        s.flow.refuses["question"] = "the conversation has moved on"
        await s.status("failed", "w1", **HELD["stop"])
        assert (await s.state(ref), (await s.channel_row()).stopped) == ("rejected", "unpaid (131042)")


async def test_of_a_message_that_nobody_knew_was_sent_the_templates_acceptance_is_told(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), fallback=HELLO)
        s.messenger.answers = [Answer("unknown")]
        await s.drain()
        await s.status("failed", "w7", echo=echo_of(ref, 1), **SHUT)
        await s.advance(2)
        assert [one.content for one in s.messenger.sent][1:] == [HELLO]
        assert s.flow.told == [("accepted", ref)]


async def test_a_failure_of_an_unknown_message_settles_it(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [Answer("unknown")]
        await s.drain()
        await s.status("failed", "w7", echo=f"v1:{ref}:1", reason="undeliverable", verdict="refused")
        assert await s.state(ref) == "rejected"
        assert s.flow.told == [("failed", ref, "refused")]
        await s.advance(300, alive=True)
        assert len(s.messenger.sent) == 1


async def test_a_tapped_option_or_a_reply_proves_that_the_message_was_seen(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [Answer("unknown")]
        await s.drain()
        assert await s.change(lambda: s.settle.evidence(ref, "its option was tapped", s.now))
        message = await s.message(ref)
        assert (message.state, message.resolution) == ("accepted", "its option was tapped")
        assert s.flow.told == [("accepted", ref)]
        assert not await s.change(lambda: s.settle.evidence(ref, "its option was tapped", s.now))
        assert not await s.change(lambda: s.settle.evidence("no such message", "a reply", s.now))


async def test_evidence_of_what_was_never_sent_means_nothing(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), after=60)
        assert not await s.change(lambda: s.settle.evidence(ref, "forged", s.now))
        assert await s.state(ref) == "queued"


async def test_a_status_of_another_channel_settles_nothing_here(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [Answer("unknown")]
        await s.drain()
        await s.sql_run("UPDATE oncue_message SET channel = 'other'")
        await s.status("delivered", "w7", echo=f"v1:{ref}:1")
        assert await s.state(ref) == "unknown"


@given(st.text(), st.integers(0, 10**9 - 1))
def test_an_echo_says_what_was_sent(ref: str, attempt: int) -> None:
    assert read_echo(echo_of(ref, attempt)) == ((ref, attempt) if ref else (None, None))


@given(st.one_of(st.none(), st.text(), st.from_regex(r"v1:[a-f]*:[0-9²]*", fullmatch=True)))
def test_no_echo_breaks_the_reader(echo: str | None) -> None:
    ref, attempt = read_echo(echo)
    assert (ref is None) == (attempt is None)


async def test_the_acceptance_is_never_before_the_request(backend: Backend) -> None:
    """A provider's clock tells whole seconds, and may be behind ours."""
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), after=0.7)
        s.messenger.answers = [Answer("unknown")]
        await s.advance(1)
        await s.status("sent", "w7", echo=f"v1:{ref}:1", at=s.now - 100 * SECOND)
        message = await s.message(ref)
        assert message.settled_at == message.sending_at
