"""Queues share a worker's places by weight: exactly, however few are free at a time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from oncue.store.shares import Lane, Shares, Turns

QUEUES = ("a", "b", "c")
WEIGHTS = st.fixed_dictionaries({queue: st.sampled_from([0.5, 1, 2, 3, 7]) for queue in QUEUES})


def lane(queue: str, priority: int = 0, eligible: int = 0) -> Lane:
    return (queue, priority, eligible, 0)


def claim(shares: Shares, waiting: Counter[str], count: int) -> tuple[Shares, list[str]]:
    """Take up to ``count`` jobs as a claim does, from queues with so many waiting."""
    taken: list[str] = []
    turns = Turns([lane(queue) for queue in QUEUES if waiting[queue]], shares)
    while (turn := turns.pick(count - len(taken))) is not None:
        (queue, *_), wanted = turn
        got = min(wanted, waiting[queue])
        waiting[queue] -= got
        taken += [queue] * got
        turns.took(turn[0], got, more=got == wanted)
    return shares.after(taken), taken


@given(WEIGHTS, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_while_all_have_jobs_no_two_queues_are_further_apart_than_one_start_of_each(
    weights: dict[str, float], claims: list[int]
) -> None:
    shares, waiting, started = Shares(weights), Counter(dict.fromkeys(QUEUES, 10_000)), Counter[str]()
    for count in claims:
        shares, taken = claim(shares, waiting, count)
        assert len(taken) == count
        started.update(taken)
        for one in QUEUES:
            for other in QUEUES:
                apart = started[one] / weights[one] - started[other] / weights[other]
                assert apart <= 1 / weights[one] + 1 / weights[other] + 1e-6


@given(
    WEIGHTS,
    st.lists(
        st.tuples(st.fixed_dictionaries({q: st.integers(0, 30) for q in QUEUES}), st.integers(1, 40)), max_size=20
    ),
)
def test_every_place_is_used_while_any_queue_has_jobs(
    weights: dict[str, float], rounds: list[tuple[dict[str, int], int]]
) -> None:
    shares, waiting = Shares(weights), Counter[str]()
    for come, count in rounds:
        waiting.update(come)
        there = waiting.total()
        shares, taken = claim(shares, waiting, count)
        assert len(taken) == min(count, there)


def test_one_at_a_time_the_shares_are_as_exact() -> None:
    shares, waiting, order = Shares({"a": 3, "b": 1}), Counter(a=100, b=100), ""
    for _ in range(12):
        shares, taken = claim(shares, waiting, 1)
        order += taken[0]
    assert order == "abaaabaaabaa"


def test_a_queue_that_had_nothing_saves_nothing_up_and_owes_nothing() -> None:
    shares, waiting = Shares({"a": 1, "b": 1}), Counter(a=50)
    shares, taken = claim(shares, waiting, 50)
    assert taken == ["a"] * 50
    waiting.update(a=50, b=50)
    shares, taken = claim(shares, waiting, 20)
    assert abs(taken.count("a") - taken.count("b")) <= 1


def test_a_small_weight_starves_nobody() -> None:
    shares, waiting = Shares({"a": 1000, "b": 1}), Counter(a=10_000, b=10_000)
    started = Counter[str]()
    for _ in range(25):
        shares, taken = claim(shares, waiting, 100)
        started.update(taken)
    assert started["b"] in (2, 3)


def test_priority_orders_within_a_queue_only() -> None:
    urgent, plain, other = lane("a", -5), lane("a", 5), lane("b", 0)
    turns = Turns([urgent, other, plain], Shares({"a": 1, "b": 1}))
    assert turns.pick(10) == (urgent, 5)
    turns.took(urgent, 2, more=False)
    assert turns.pick(8) == (other, 5)
    turns.took(other, 5, more=True)
    assert turns.pick(3) == (plain, 3)


def test_without_shares_the_most_urgent_lane_comes_first() -> None:
    first, second = lane("b", -1), lane("a", 0)
    turns = Turns([first, second], None)
    assert turns.pick(10) == (first, 10)
    turns.took(first, 4, more=False)
    assert turns.pick(6) == (second, 6)
    turns.took(second, 6, more=True)
    assert turns.pick(0) is None
    assert turns.left == [second]


def test_what_is_left_of_a_share_is_kept_for_the_rest_of_the_claim() -> None:
    """As on PostgreSQL, where jobs that bind each other are taken after the plain ones, under a lock."""
    shares, one, other = Shares({"a": 1, "b": 1}), lane("a"), lane("b")
    turns = Turns([one, other], shares)
    assert turns.pick(10) == (one, 5)
    turns.took(one, 2, more=False)
    turns.keep(one)
    assert turns.pick(8) == (other, 5)
    turns.took(other, 5, more=True)
    assert turns.pick(3) is None
    assert Turns([one, other], shares, {"a": 2, "b": 5}).pick(3) == (one, 3)
