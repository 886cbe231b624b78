"""The application takes in what WhatsApp posts, over real HTTP, and all or nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from stage import Stage
from standin import sign


class Application:
    """The web side in a process of its own, and trials whose first question has been sent."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.client = httpx.Client(base_url=stage.web, timeout=20, trust_env=False)

    def asked(self, *names: str) -> None:
        """Begin a trial each, and let WhatsApp confirm the first question, as after a worker's POST."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self.client.get("/health").raise_for_status()  # the tables are there when it answers
        for name in names:
            self.stage.write(
                "INSERT INTO free_trials (id, wa_id, name, next_question_scheduled_for) VALUES (?, ?, ?, ?)",
                name,
                f"wa-{name}",
                name,
                now,
            )
            self.stage.write(
                "INSERT INTO messages (id, state, attempt, sending_since) VALUES (?, 'sending', 1, ?)",
                f"{name}/question-0",
                now,
            )
            assert self.post(change(statuses=[status(name, "sent")])).status_code == 200

    def post(self, *changes: dict[str, Any], signature: str | None = None) -> httpx.Response:
        return self.post_raw(update([*changes]), signature)

    def post_raw(self, raw: bytes, signature: str | None = None) -> httpx.Response:
        headers = {"x-hub-signature-256": sign(raw, "local-secret") if signature is None else signature}
        return self.client.post("/webhook", content=raw, headers=headers)

    def jobs(self) -> list[str]:
        """The keys of all jobs that wait."""
        return sorted(row[0] for row in self.stage.ask("SELECT key FROM oncue_job"))

    def answers(self) -> list[tuple[str, int | None, str]]:
        rows = self.stage.ask("SELECT trial_id, question_index, body FROM answers ORDER BY received_at, wamid")
        return [(row[0], row[1], row[2]) for row in rows]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Application]:
    with Stage(tmp_path) as stage:
        stage.web = stage.serve("web", "trial:web")
        application = Application(stage)
        yield application
        application.client.close()


def message(name: str, text: str = "Yes", number: int = 1) -> dict[str, Any]:
    return {"from": f"wa-{name}", "id": f"wamid.{name}.{number}", "timestamp": "1", "text": {"body": text}}


def status(name: str, what: str, number: int = 0) -> dict[str, Any]:
    echo = f"v1:{name}/question-{number}:1:0"
    return {"id": f"wamid.out.{name}", "status": what, "biz_opaque_callback_data": echo}


def change(**value: Any) -> dict[str, Any]:
    return {"field": "messages", "value": {"messaging_product": "whatsapp", **value}}


def update(*entries: list[dict[str, Any]]) -> bytes:
    return json.dumps({"object": "x", "entry": [{"id": "0", "changes": changes} for changes in entries]}).encode()


def test_the_handshake_answers_the_bare_challenge(site: Application) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "local-verify-token", "hub.challenge": "1158201444"}
    answer = site.client.get("/webhook", params=query)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    assert site.client.get("/webhook", params=query | {"hub.verify_token": "wrong"}).status_code == 403


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=" + "0" * 64, "sha256=ä"])
def test_a_bad_signature_stores_nothing(site: Application, signature: str) -> None:
    site.asked("ana")
    before = site.jobs()
    raw = update([change(messages=[message("ana")])])
    headers = {b"x-hub-signature-256": signature.encode()}
    assert site.client.post("/webhook", content=raw, headers=headers).status_code == 401
    assert (site.answers(), site.jobs()) == ([], before)


def test_the_signature_is_of_the_raw_bytes(site: Application) -> None:
    site.asked("ana")
    escaped = update([change(messages=[message("ana", "Nö 🙂")])])
    rewritten = json.dumps(json.loads(escaped), ensure_ascii=False).encode()
    assert escaped != rewritten
    assert site.post_raw(rewritten, sign(escaped, "local-secret")).status_code == 401
    assert site.post_raw(escaped).status_code == 200
    assert site.answers() == [("ana", 0, "Nö 🙂")]


@pytest.mark.parametrize("raw", [b"", b"no JSON", b"[]", b'{"entry": 1}', b'{"entry": [{"changes": [{}]}]}'])
def test_what_is_no_webhook_is_told_so(site: Application, raw: bytes) -> None:
    assert site.post_raw(raw).status_code == 400


def test_an_answer_calls_off_the_reminder_and_sets_the_next_question(site: Application) -> None:
    site.asked("ana")
    assert site.jobs() == ["reminder-ana"]
    before = datetime.now(UTC).timestamp()
    assert site.post(change(messages=[message("ana")])).status_code == 200
    after = datetime.now(UTC).timestamp()
    assert site.answers() == [("ana", 0, "Yes")]
    assert site.jobs() == ["question-ana"]
    ((due, group),) = site.stage.ask("SELECT scheduled_at / 1e6, group_name FROM oncue_job")
    ((number, row_due),) = site.stage.ask("SELECT question_index, next_question_scheduled_for FROM free_trials")
    assert (number, group) == (1, "trial-ana")
    assert before + 2 <= due <= after + 10
    assert datetime.fromisoformat(row_due).timestamp() == pytest.approx(due, abs=1e-5)


def test_the_same_webhook_twice_changes_nothing_more(site: Application) -> None:
    site.asked("ana")
    raw = update([change(messages=[message("ana")])])
    everything = "SELECT (SELECT group_concat(scheduled_at) FROM oncue_job), * FROM free_trials, answers"
    assert site.post_raw(raw).status_code == 200
    once = site.stage.ask(everything)
    assert site.post_raw(raw).status_code == 200
    assert site.stage.ask(everything) == once


def test_an_afterthought_is_kept_and_sets_nothing(site: Application) -> None:
    site.asked("ana")
    site.post(change(messages=[message("ana", "Yes")]))
    before = site.stage.ask("SELECT scheduled_at FROM oncue_job")
    site.post(change(messages=[message("ana", "and no", number=2)]))
    assert site.answers() == [("ana", 0, "Yes"), ("ana", None, "and no")]
    assert site.stage.ask("SELECT scheduled_at FROM oncue_job") == before


def test_a_batch_is_read_at_all_levels_and_one_bad_item_costs_no_other(site: Application) -> None:
    names = [f"p{number}" for number in range(8)]
    site.asked(*names)
    each = [message(name) for name in names]
    raw = update(
        [change(messages=each[0:2]), change(messages=[{"type": "unknown"}, *each[2:4]])],
        [change(messages=[*each[4:6], 7], statuses=[None, status("p7", "delivered")]), change(messages=each[6:7])],
        [change(messages=[message("nobody")]), change(statuses=[status("p6", "a new word"), status("nobody", "sent")])],
    )
    assert site.post_raw(raw).status_code == 200
    assert sorted(name for name, _, _ in site.answers()) == names[:7]
    assert site.jobs() == [*(f"question-{name}" for name in names[:7]), "reminder-p7"]
    assert site.stage.ask("SELECT state FROM messages WHERE id = 'p7/question-0'") == [("delivered",)]


def test_a_rollback_keeps_the_reminder_and_the_question_open(site: Application) -> None:
    site.asked("ana", "bilal")
    before = site.stage.ask("SELECT * FROM oncue_job ORDER BY id")
    site.stage.write(
        "CREATE TRIGGER full_disk BEFORE INSERT ON oncue_job WHEN NEW.key = 'question-bilal'"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    both = change(messages=[message("ana"), message("bilal")])
    assert site.post(both).status_code == 500
    assert site.answers() == []
    assert site.stage.ask("SELECT * FROM oncue_job ORDER BY id") == before
    site.stage.write("DROP TRIGGER full_disk")
    assert site.post(both).status_code == 200
    assert site.jobs() == ["question-ana", "question-bilal"]


def test_statuses_come_in_any_order_and_a_late_failure_loses(site: Application) -> None:
    site.asked("ana")
    for what in ("delivered", "sent", "failed"):
        site.post(change(statuses=[status("ana", what)]))
    assert site.stage.ask("SELECT state, wamid FROM messages") == [("delivered", "wamid.out.ana")]
    assert site.jobs() == ["reminder-ana"]


def test_a_question_that_failed_ends_the_trial(site: Application) -> None:
    site.asked("ana")
    site.post(change(statuses=[status("ana", "failed")]))
    assert site.stage.ask("SELECT status FROM free_trials") == [("unreachable",)]
    assert site.jobs() == []
