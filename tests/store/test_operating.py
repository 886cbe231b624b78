"""Paused tasks, and what is kept of operators: the audit, tokens, minutes."""

from __future__ import annotations

from functools import partial

from oncue.limits import Limit, Policy, Rules
from oncue.store.operating import AuditRow, MinuteRow
from oncue.store.steps import operate
from tests.store.kit import T0, Bench, S, job


async def _pause(bench: Bench, name: str) -> bool:
    return await bench.store.change(lambda: operate.pause_task(name, bench.now, "cli:ana"))


async def _resume(bench: Bench, name: str) -> bool:
    return await bench.store.change(lambda: operate.resume_task(name), bench.now)


async def test_nobody_claims_a_paused_task(bench: Bench) -> None:
    worker = await bench.worker()
    held, free, later = await bench.add(job(task="a"), job(task="b"), job(9, task="a"))
    assert await _pause(bench, "a")
    assert await bench.ids(worker) == [free]
    found = await bench.ask(worker)
    # Nothing to come back for: the worker sleeps until somebody resumes it.
    assert (found.jobs, found.more, found.next_eligible, found.held) == ([], False, None, False)
    assert await _resume(bench, "a")
    found = await bench.ask(worker)
    assert ([one.id for one in found.jobs], found.next_eligible) == ([held], T0 + 9 * S)
    bench.clock.move(9)
    assert await bench.ids(worker) == [later]


async def test_a_paused_task_with_groups_and_limits_stands_in_nobodys_way(bench: Bench) -> None:
    worker = await bench.worker()
    policy = Policy({"a": Rules(limit=Limit(1))})
    await bench.add(job(task="a", group="g"), job(task="a", key="k"))
    (free,) = await bench.add(job(1, task="b"))
    await _pause(bench, "a")
    assert (await bench.ask(worker, policy=policy)).next_eligible == T0 + 1 * S
    bench.clock.move(1)
    assert await bench.ids(worker, policy=policy) == [free]


async def test_what_is_paused_is_parked_by_the_sweep_and_comes_back_as_it_was(bench: Bench) -> None:
    worker = await bench.worker()
    held, grouped, later = await bench.add(job(task="a"), job(task="a", group="g"), job(9, task="a"))
    (free,) = await bench.add(job(task="b", group="g"))
    await _pause(bench, "a")
    await bench.store.unblock()
    assert [(await bench.get(id)).blocked_by for id in (held, grouped, later)] == ["pause:a", "pause:a", None]
    # The lane keeps its order: what comes first in it is paused.
    assert await bench.ids(worker) == []
    # The sweep lets none of them go, however often it looks; nor does it take what is new and not due.
    await bench.store.unblock()
    assert (await bench.get(held)).eligible_at is None
    assert (await bench.store.backlog(T0, None)).remaining == 1
    await _resume(bench, "a")
    assert sorted(await bench.ids(worker)) == [held, grouped]
    assert (await bench.get(free)).blocked_by == "group:g"
    assert not await bench.store.change(lambda: operate.unpark_paused("a"))
    # Nobody is parked for a pause that is over.
    assert not await bench.store.change(lambda: operate.park_paused("a", T0 + 9 * S))
    assert (await bench.get(later)).blocked_by is None


async def test_what_is_paused_is_not_left_to_do(bench: Bench) -> None:
    await bench.add(job(task="a"), job(task="b"), job(5, task="a"), job(7, task="b"))
    await _pause(bench, "a")
    assert (await bench.store.backlog(T0, None)).remaining == 1
    assert [when for _, when in await bench.store.coming(T0, T0 + 60 * S, 10)] == [T0 + 7 * S]
    await _pause(bench, "b")
    left = await bench.store.backlog(T0, None)
    assert (left.remaining, left.next_due) == (0, None)


async def test_a_pause_keeps_who_paused_first(bench: Bench) -> None:
    assert await _pause(bench, "a")
    bench.clock.move(5)
    assert not await bench.store.change(lambda: operate.pause_task("a", bench.now, "cli:bo"))
    (row,) = await bench.store.look(operate.paused_tasks)
    assert (row.name, row.paused_at, row.who) == ("a", T0, "cli:ana")
    assert await _resume(bench, "a")
    assert not await _resume(bench, "a")


async def test_the_audit_is_read_backwards_and_by_target(bench: Bench) -> None:
    for number, target in enumerate(("job:1", "queue:q", "job:1")):
        row = AuditRow(0, T0 + number, "loopback", "cancel", target, 1, '{"n": 1}')
        assert await bench.store.change(partial(operate.add_audit, row))
    found = await bench.store.look(lambda: operate.audit(2))
    assert [row.at - T0 for row in found] == [2, 1]
    rest = await bench.store.look(lambda: operate.audit(9, before=found[-1].id))
    assert [row.at - T0 for row in rest] == [0]
    assert [row.at - T0 for row in await bench.store.look(lambda: operate.audit(9, target="job:1"))] == [2, 0]
    assert await bench.store.change(lambda: operate.prune_audit(T0 + 1, 10)) == 1
    assert len(await bench.store.look(lambda: operate.audit(9))) == 2


async def test_a_request_is_recorded_once(bench: Bench) -> None:
    row = AuditRow(0, T0, "token:ana", "schedule", "jobs")
    assert await bench.store.change(lambda: operate.add_audit(row, "token:ana/1"))
    assert not await bench.store.change(lambda: operate.add_audit(row, "token:ana/1"))
    await bench.store.change(lambda: operate.settle_audit("token:ana/1", "job:7", 1, '{"body": "x"}'))
    found = await bench.store.look(lambda: operate.audit_of_request("token:ana/1"))
    assert found is not None
    assert (found.target, found.detail) == ("job:7", '{"body": "x"}')
    assert await bench.store.look(lambda: operate.audit_of_request("token:bo/1")) is None


async def test_a_token_is_good_until_it_ends_or_is_revoked(bench: Bench) -> None:
    assert await bench.store.change(lambda: operate.add_token("ana", ["read", "operate"], "h1", T0, T0 + S))
    assert not await bench.store.change(lambda: operate.add_token("ana", ["read"], "h2", T0, None))
    found = await bench.store.look(lambda: operate.token_of("h1"))
    assert found is not None
    assert (found.name, found.roles) == ("ana", ["operate", "read"])
    assert (found.good(T0), found.good(T0 + S)) == (True, False)
    assert await bench.store.change(lambda: operate.revoke_token("ana", T0))
    assert not await bench.store.change(lambda: operate.revoke_token("ana", T0))
    (revoked,) = await bench.store.look(operate.tokens)
    assert not revoked.good(T0)
    assert await bench.store.look(lambda: operate.token_of("h2")) is None


async def test_a_minute_is_replaced_by_what_was_counted_since(bench: Bench) -> None:
    minute = T0 - T0 % (60 * S)
    for started in (1, 3):
        rows = [MinuteRow(minute, 1, "a", started, lateness='{"1000": 2}'), MinuteRow(minute, 2, "a", 5)]
        await bench.store.change(partial(operate.save_minutes, rows))
    found = await bench.store.look(lambda: operate.minutes(minute, minute + 1))
    assert sorted((row.worker, row.started, row.lateness) for row in found) == [(1, 3, '{"1000": 2}'), (2, 5, "{}")]
    assert await bench.store.look(lambda: operate.minutes(minute + 1, minute + 60 * S)) == []
    assert await bench.store.change(lambda: operate.prune_minutes(minute)) == 0
    assert await bench.store.change(lambda: operate.prune_minutes(minute + 1)) == 2
