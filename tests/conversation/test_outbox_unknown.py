"""The crash window: a message that may have been sent is neither lost nor doubled, as far as statuses tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oncue.clock import SECOND, from_us
from oncue.store.steps import Steps
from oncue.transport import Answer, Outgoing, Template
from tests.conversation.outbox_stage import LEASE, Died, R, Stage, stage
from tests.databases import Backend

UNKNOWN = Answer("unknown", reason="the connection broke")
HELLO = Template("hello", "en")


def dies(before: Callable[[Outgoing], Awaitable[None]] | None = None) -> Callable[[Outgoing], Awaitable[Answer]]:
    """A request during which the process ends."""

    async def request(message: Outgoing) -> Answer:
        if before is not None:
            await before(message)
        raise Died

    return request


async def die(s: Stage, ref: str) -> None:
    """Have a worker take the message's job and die during the request; its lease ends and the job is taken back."""
    attempt = await s.claim(ref)
    s.messenger.answers.insert(0, dies())
    with pytest.raises(Died):
        await attempt.run()
    assert await s.state(ref) == "sending"
    s.clock.advance(LEASE / SECOND + 1)
    await s.alive()
    await s.rescue()


async def test_what_a_dead_worker_left_is_unknown_and_settled_by_its_echo(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        await die(s, ref)
        await s.drain()
        message = await s.message(ref)
        assert (message.state, message.attempt) == ("unknown", 1)
        await s.status("delivered", "wamid-1", echo=f"v1:{ref}:1")
        message = await s.message(ref)
        assert (message.state, message.external_id, message.status) == ("accepted", "wamid-1", "delivered")
        assert message.resolution == "status delivered"
        assert s.flow.told == [("accepted", ref), ("delivered", ref)]
        await s.advance(3 * R, alive=True)
        assert len(s.messenger.sent) == 1
        assert await s.change(s.outbox.duplicates) == []


async def test_a_question_of_which_no_status_comes_is_resent_once_after_the_window(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        ref = await s.queue(person)
        await die(s, ref)
        await s.drain()
        since = (await s.message(ref)).unknown_at
        assert since is not None
        await s.advance(R - 2, alive=True)
        assert len(s.messenger.sent) == 1
        await s.advance(3, alive=True)
        assert [m.echo for m in s.messenger.sent] == [f"v1:{ref}:1", f"v1:{ref}:2"]
        assert (s.messenger.times[1] - from_us(since)).total_seconds() >= R
        message = await s.message(ref)
        assert (message.state, message.resent, message.attempt) == ("accepted", 1, 2)
        assert s.flow.told == [("accepted", ref)]
        assert ("resent", "no status came for attempt 1") in await s.events(person)


async def test_where_both_copies_went_out_after_all_the_duplicate_is_counted(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [UNKNOWN]
        await s.advance(R + 5, alive=True)
        assert await s.state(ref) == "accepted"
        assert await s.change(s.outbox.duplicates) == []
        await s.status("delivered", "first", echo=f"v1:{ref}:1")
        (twice,) = await s.change(s.outbox.duplicates)
        assert (twice.ref, twice.copies) == (ref, 2)
        assert s.flow.told == [("accepted", ref), ("delivered", ref)]


async def test_a_copy_that_the_messenger_says_failed_is_no_duplicate(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [UNKNOWN]
        await s.advance(R + 5, alive=True)
        await s.status("failed", "first", echo=f"v1:{ref}:1", reason="expired", verdict="refused")
        assert await s.state(ref) == "accepted"
        assert await s.change(s.outbox.duplicates) == []
        assert s.flow.told == [("accepted", ref)]


async def test_a_second_unknown_outcome_gives_the_question_up(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        ref = await s.queue(person)
        later = await s.queue(person, "later", kind="say")
        s.messenger.answers = [UNKNOWN, UNKNOWN]
        await s.advance(3 * R, alive=True)
        message = await s.message(ref)
        assert (message.state, message.resolution) == ("unknown", "given up: unknown a second time")
        assert message.settled_at is not None
        assert len(s.messenger.sent) == 3
        assert s.messenger.bodies[2] == "later"
        assert s.flow.told == [("failed", ref, "unknown"), ("accepted", later)]


@pytest.mark.parametrize(
    ("kind", "content", "fallback"), [("reminder", None, None), ("question", HELLO, None), ("question", None, HELLO)]
)
async def test_a_reminder_or_a_template_is_not_resent_and_the_flow_goes_on(
    backend: Backend, kind: str, content: Template | None, fallback: Template | None
) -> None:
    async with stage(backend) as s:
        person = await s.person(heard=0 if fallback is None else None)
        what: dict[str, Any] = {} if content is None else {"content": content}
        ref = await s.queue(person, kind=kind, fallback=fallback, **what)
        s.messenger.answers = [UNKNOWN]
        await s.advance(3 * R, alive=True)
        message = await s.message(ref)
        assert message.state == "unknown"
        assert message.resolution == f"not resent: a {'reminder' if kind == 'reminder' else 'template'} is not"
        assert s.flow.told == [("going on", ref)]
        assert len(s.messenger.sent) == 1
        # What is learned later still counts, but is not told again.
        await s.status("read", "late", echo=f"v1:{ref}:1")
        assert await s.state(ref) == "accepted"
        assert ("accepted", ref) not in s.flow.told


async def test_an_unknown_outcome_blocks_only_that_person(backend: Backend) -> None:
    async with stage(backend) as s:
        person, other = await s.person(), await s.person()
        ref = await s.queue(person, "a")
        s.messenger.answers = [UNKNOWN]
        await s.drain()
        await s.queue(person, "b", kind="say")
        await s.queue(other, "c")
        await s.advance(10)
        assert s.messenger.bodies == ["a", "c"]
        await s.status("sent", "wa", echo=f"v1:{ref}:1")
        # At once: what waited was woken, not left to its next look.
        await s.drain()
        assert s.messenger.bodies == ["a", "c", "b"]


async def test_the_ordinary_case_leaves_nothing_to_look_at(backend: Backend) -> None:
    """A status between A and B settles the message; B then only records the external id."""
    async with stage(backend) as s:
        ref = await s.queue(await s.person())

        async def early(_: Outgoing) -> Answer:
            await s.status("sent", "w9", echo=f"v1:{ref}:1")
            assert await s.state(ref) == "accepted"
            return Answer("sent", "w9")

        s.messenger.answers = [early]
        await s.drain()
        assert s.flow.told == [("accepted", ref)]
        assert await s.sql("SELECT external_id, attempt FROM oncue_sent") == [("w9", 1)]
        assert (await s.message(ref)).resolution is None


@pytest.mark.parametrize("verdict", ["sent", "retry", "refused", "wait_person"])
async def test_an_answer_that_comes_after_the_rescue_still_counts(backend: Backend, verdict: str) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        asked, held = asyncio.Event(), asyncio.Event()

        async def hangs(_: Outgoing) -> Answer:
            asked.set()
            await held.wait()
            return Answer(verdict, "w-late" if verdict == "sent" else None)  # type: ignore[arg-type]

        attempt = await s.claim(ref)
        s.messenger.answers = [hangs]
        late = asyncio.create_task(attempt.run())
        await asked.wait()
        s.clock.advance(LEASE / SECOND + 1)
        await s.rescue()
        await s.drain()
        assert await s.state(ref) == "unknown"
        held.set()
        await asyncio.wait({late})
        late.exception()
        # Whoever has taken over waits for this: at once, not at its next look.
        await s.advance(4 if verdict == "wait_person" else 0.001)
        message = await s.message(ref)
        if verdict == "sent":
            assert (message.state, message.external_id) == ("accepted", "w-late")
            assert message.resolution == "the messenger's answer came late"
        elif verdict == "refused":
            assert s.flow.told == [("failed", ref, "refused")]
        else:
            # It is certain now that nothing went out, so it goes at once, and is no resend.
            assert (message.state, message.attempt, message.resent) == ("accepted", 2, 0)


async def test_an_attempt_whose_job_was_taken_back_sends_nothing(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        attempt = await s.claim(ref)
        s.clock.advance(LEASE / SECOND + 1)
        await s.rescue()
        await attempt.run()
        assert s.messenger.sent == []
        assert await s.state(ref) == "queued"
        await s.drain()
        assert len(s.messenger.sent) == 1
        await attempt.run()
        assert len(s.messenger.sent) == 1


async def test_a_process_that_slept_between_the_check_and_the_request_sends_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        attempt = await s.claim(ref)
        change, calls = s.app.store.change, 0

        async def slow(*args: Any, **more: Any) -> Any:
            nonlocal calls
            answer: Any = await change(*args, **more)
            calls += 1
            if calls == 1:
                s.clock.advance(8)
            return answer

        monkeypatch.setattr(s.app.store, "change", slow)
        with pytest.raises(Exception, match="not sent: 8 s passed"):
            await attempt.run()
        assert s.messenger.sent == []
        assert await s.state(ref) == "queued"


async def test_a_transport_that_raises_leaves_an_unknown_outcome(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())

        async def broken(_: Outgoing) -> Answer:
            raise ValueError("a bug")

        s.messenger.answers = [broken]
        await s.drain()
        assert await s.state(ref) == "unknown"


async def test_an_answer_that_cannot_be_stored_at_first_is_stored_later(backend: Backend) -> None:
    from oncue.errors import StoreUnavailable

    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        record, failures = s.outbox._verdicts.record, [StoreUnavailable("gone"), StoreUnavailable("gone")]

        def troubled(*args: object) -> Steps[object]:
            if failures:
                raise failures.pop()
            return record(*args)  # type: ignore[arg-type]

        s.outbox._verdicts.record = troubled  # type: ignore[assignment, method-assign]
        await s.drain()
        assert await s.state(ref) == "accepted"
        assert len(s.messenger.sent) == 1


# --- the intake was demonstrably alive: each clause of Settle.trust


async def test_a_worker_that_dies_again_and_again_loses_nothing(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        await die(s, ref)
        await s.drain()
        # The resend dies too: unknown a second time.
        await s.advance(R - 13, alive=True)
        s.messenger.answers = [dies()] * 3
        await s.advance(10 * R, alive=True)
        message = await s.message(ref)
        assert (message.state, message.resolution) == ("unknown", "given up: unknown a second time")
        assert len(s.messenger.sent) == 2
