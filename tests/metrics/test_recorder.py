"""The recorder: outcomes and spans of a batch of acks, in buckets, by task and by minute."""

from __future__ import annotations

import json
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from oncue.job import Ack, Claimed
from oncue.metrics import EDGES, MINUTE, Histogram, Recorder, bucketed, merged, to_json

NOW = 30_000_000 * MINUTE


def claimed(id: int = 1, task: str = "send", due: int = NOW) -> Claimed:
    return Claimed(
        id, task, "{}", "q", 0, due, 1, 0, 5, None, None, 0, None, "wait", 0, None, "run", None, None, None, 0, due
    )


def settled(
    outcome: str = "completed", *, late: int = 0, ran: int = 0, id: int = 1, task: str = "send"
) -> tuple[Claimed, Ack]:
    state = outcome if outcome in ("completed", "discarded") else "scheduled"
    return claimed(id, task), Ack(id, 1, state, outcome, NOW + late, NOW + late + ran)  # type: ignore[arg-type]


def histogram(spans: list[int]) -> Histogram:
    found = Histogram()
    found.add(bucketed(sorted(spans)), sum(spans), max(spans, default=0))
    return found


@given(st.lists(st.one_of(st.integers(-5, 20_000_000_000), st.sampled_from(EDGES)), min_size=1, max_size=60))
def test_each_span_is_in_the_lowest_bucket_that_holds_it(spans: list[int]) -> None:
    expected = [0] * (len(EDGES) + 1)
    for span in spans:
        expected[next((n for n, edge in enumerate(EDGES) if span <= edge), len(EDGES))] += 1

    assert histogram(spans).counts == expected


@given(st.lists(st.integers(0, 20_000_000_000), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_exact_to_its_bucket_and_never_above_the_longest_span(spans: list[int], share: float) -> None:
    spans.sort()
    exact = spans[max(0, min(len(spans) - 1, -int(-share * len(spans) // 1) - 1))]
    bucket = next((n for n, edge in enumerate(EDGES) if exact <= edge), len(EDGES))
    low = EDGES[bucket - 1] if bucket else 0

    assert (
        low <= histogram(spans).quantile(share) <= min(spans[-1], EDGES[bucket] if bucket < len(EDGES) else spans[-1])
    )


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.99) == 0


@given(st.lists(st.lists(st.integers(0, 20_000_000_000), min_size=1, max_size=20), max_size=4))
def test_stored_histograms_merge_to_that_of_all_their_spans(rows: list[list[int]]) -> None:
    every = [span for row in rows for span in row]
    found = merged(to_json(histogram(row)) for row in rows)

    assert found.counts == histogram(every).counts
    assert found.max == max(every, default=0)


def test_a_batch_counts_by_task_and_outcome_and_what_was_lost_does_not() -> None:
    done = Recorder()
    batch = [
        settled(late=1_500, ran=40_000),
        settled("retried", late=3_000, ran=7, id=2),
        settled("released", late=9_000_000, id=3),
        settled("discarded", id=4, task="call"),
        settled(id=5),
    ]
    done.acked(9, NOW + 5, batch, lost=[5])

    assert done.tasks["send"].outcomes == {"completed": 1, "retried": 1, "released": 1}
    assert done.tasks["call"].outcomes == {"discarded": 1}
    assert (done.acks, done.acks_lost) == (4, 1)
    # What was given back unrun did not start, so it was not late.
    assert (done.tasks["send"].lateness.count, done.tasks["send"].lateness.total) == (2, 4_500)
    assert done.tasks["send"].duration.max == 40_000
    call, send = done.take_minutes(NOW)
    assert (call.task, call.discarded, call.started) == ("call", 1, 1)
    assert (send.minute, send.worker, send.started, send.completed, send.retried) == (NOW, 9, 2, 1, 1)
    assert send.ran_us == 40_007
    assert json.loads(to_json(send.lateness)) == {"2000": 1, "3000": 1}


def test_a_minute_is_handed_on_whole_also_where_its_last_figures_come_late() -> None:
    done, told = Recorder(), []
    done.listeners.append(lambda: told.append(done.news))
    done.acked(1, NOW, [settled()])
    done.acked(1, NOW, [settled(id=2)])
    assert [one.completed for one in done.take_minutes(NOW)] == [2]
    assert not done.news
    assert done.take_minutes(NOW) == []
    done.acked(1, NOW, [settled(id=3)])
    assert [one.completed for one in done.take_minutes(NOW + 3 * MINUTE)] == [3]
    done.acked(1, NOW + 3 * MINUTE, [settled(id=4)])
    done.acked(1, NOW, [settled(id=5)])

    counted = [(one.minute, one.completed) for one in done.take_minutes(NOW + 3 * MINUTE)]
    assert counted == [(NOW, 4), (NOW + 3 * MINUTE, 1)]
    assert told == [True] * 3


def test_minutes_that_could_not_be_written_come_again_with_what_came_since() -> None:
    done = Recorder()
    done.acked(1, NOW, [settled()])
    taken = done.take_minutes(NOW)
    done.acked(1, NOW, [settled(id=2)])
    done.give_back(taken)
    assert [one.completed for one in done.take_minutes(NOW)] == [2]

    # For as long as a database may be away, and no longer than memory bears.
    done.give_back(SimpleNamespace(minute=NOW + n, worker=1, task="send") for n in range(5_003))  # type: ignore[misc]
    assert [one.minute for one in done.take_minutes(NOW)] == [NOW + n for n in range(3, 5_003)]


def test_a_round_counts_what_it_was_given() -> None:
    done = Recorder()
    found = SimpleNamespace(jobs=[claimed(), claimed(2)], lost=[], skipped=3, limited=4)
    done.round(7, NOW, [], found)

    assert (done.claims, done.claimed, done.skipped, done.limited) == (1, 2, 3, 4)
    assert [(one.worker, one.task, one.skipped) for one in done.take_minutes(NOW)] == [(7, "", 3)]


def test_what_was_rescued_counts_and_what_that_discarded_too() -> None:
    done = Recorder()
    done.rescues(NOW, [settled("rescued"), settled("discarded", id=2)])

    assert (done.rescued, done.tasks["send"].outcomes) == (2, {"rescued": 1, "discarded": 1})
    (minute,) = done.take_minutes(NOW)
    assert minute.discarded == 1
    assert minute.worker < 0
