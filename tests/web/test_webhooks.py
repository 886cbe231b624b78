"""Updates of messengers over HTTP: on a real server, on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from oncue import OnCue
from oncue.conversation.intake import MOST_BYTES
from oncue.web import cron_app, web_app, webhook_app
from oncue.whatsapp import WhatsApp
from tests.web.conftest import serving

SECRET = "the-secret-of-an-app"
UPDATE = {
    "object": "whatsapp_business_account",
    "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp", "metadata": {"phone_number_id": "106"},
        "contacts": [{"wa_id": "16505550100", "profile": {"name": "Ann"}}],
        "messages": [{"from": "16505550100", "id": "wamid.1", "timestamp": "1700000000", "type": "text",
                      "text": {"body": "h\u00e9llo"}}],
    }}]}],
}  # fmt: skip


@pytest.fixture
def app(url: str) -> OnCue:
    app = OnCue(url, sweep=3600.0)
    app.channel(WhatsApp(token="t", phone_number_id="106", app_secret=SECRET, verify_token="ours"))
    return app


def signed(raw: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()}


def count(url: str, table: str) -> int:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as conn:
        return int(conn.execute(f"SELECT count(*) FROM oncue_{table}").fetchone()[0])


# Escaped as Meta escapes it: another body than the one that a client of ours would write.
RAW = json.dumps(UPDATE).encode()


@pytest.mark.parametrize("make", [webhook_app, cron_app, lambda app: web_app(app, worker=False)])
def test_an_update_is_stored_before_it_is_answered(app: OnCue, url: str, make: Any) -> None:
    with serving(make(app)) as client:
        assert client.post("/webhooks/whatsapp", content=RAW, headers=signed(RAW)).status_code == 200
        assert count(url, "update") == count(url, "inbound") == count(url, "person") == count(url, "job") == 1
        assert count(url, "channel") == 1
        other = json.dumps(UPDATE, ensure_ascii=False).encode()
        for headers in ({}, signed(other), signed(RAW, "another"), {"X-Hub-Signature-256": "sha256="}):
            answer = client.post("/webhooks/whatsapp", content=RAW, headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
        assert count(url, "update") == 1


def test_the_handshake(app: OnCue) -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": "ours", "hub.challenge": "<b>1158201444"}
    with serving(webhook_app(app)) as client:
        answer = client.get("/webhooks/whatsapp", params=asked)
        assert (answer.status_code, answer.text) == (200, "<b>1158201444")
        assert answer.headers["content-type"].startswith("text/plain")
        for wrong in ({}, asked | {"hub.verify_token": "theirs"}, asked | {"hub.mode": "unsubscribe"}):
            assert client.get("/webhooks/whatsapp", params=wrong).status_code == 403
        assert client.get("/webhooks/other", params=asked).status_code == 404
        assert client.post("/webhooks/other", content=RAW, headers=signed(RAW)).status_code == 404
        assert client.head("/webhooks/whatsapp", params=asked).status_code == 405
        assert client.put("/webhooks/whatsapp").status_code == 405


def test_what_is_too_large_is_refused(app: OnCue, url: str) -> None:
    most = b" " * MOST_BYTES

    def pieces() -> Any:
        for _ in range(5):
            yield b" " * (MOST_BYTES // 4)

    with serving(webhook_app(app)) as client:
        assert client.post("/webhooks/whatsapp", content=most, headers=signed(most)).status_code == 200
        assert client.post("/webhooks/whatsapp", content=most + b" ", headers=signed(most + b" ")).status_code == 413
        # The server may have answered and closed before all of it was sent.
        with contextlib.suppress(httpx.TransportError):
            assert client.post("/webhooks/whatsapp", content=pieces()).status_code == 413
    assert count(url, "update") == 1


def test_a_database_that_is_away_has_the_messenger_send_it_again(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/secret-place/jobs.db")
    app.channel(WhatsApp(token="t", phone_number_id="106", app_secret=SECRET, verify_token="ours"))
    with serving(Starlette(routes=[Mount("/hooks", webhook_app(app))])) as client:
        answer = client.post("/hooks/webhooks/whatsapp", content=RAW, headers=signed(RAW))
        assert answer.status_code == 503
        assert "secret-place" not in answer.text
        (tmp_path / "secret-place").mkdir()
        assert client.post("/hooks/webhooks/whatsapp", content=RAW, headers=signed(RAW)).status_code == 200
    assert count(f"sqlite:///{tmp_path}/secret-place/jobs.db", "inbound") == 1
    # Mounted it has no lifespan, so each update says that the intake runs.
    assert count(f"sqlite:///{tmp_path}/secret-place/jobs.db", "channel") == 1


def test_mounted_it_goes_on_saying_that_it_runs_while_nobody_writes(
    app: OnCue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.conversation.intake.BEAT", 0.01)
    with serving(Starlette(routes=[Mount("/hooks", webhook_app(app))])) as client:
        assert client.post("/hooks/webhooks/whatsapp", content=RAW, headers=signed(RAW)).status_code == 200
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as conn:
            seen = "SELECT seen_at FROM oncue_channel"
            first = conn.execute(seen).fetchone()
            deadline = time.monotonic() + 20
            while conn.execute(seen).fetchone() == first:
                assert time.monotonic() < deadline, "it was said once only"
                time.sleep(0.01)


def test_a_mistake_is_no_loss(app: OnCue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    said = f"what {'Ann'} wrote"

    def wrong(*_: Any) -> bool:
        raise RuntimeError(said)

    monkeypatch.setattr(app.channels["whatsapp"].transport, "genuine", wrong)
    with serving(webhook_app(app)) as client, caplog.at_level(logging.ERROR):
        assert client.post("/webhooks/whatsapp", content=RAW, headers=signed(RAW)).status_code == 500
    assert "the messenger will send it again: RuntimeError" in caplog.text
    assert "in wrong" in caplog.text, "where it arose"
    assert "Ann" not in "".join(record.getMessage() + (record.exc_text or "") for record in caplog.records)


def test_an_application_without_channels_has_no_such_place(url: str) -> None:
    with serving(web_app(OnCue(url), worker=False)) as client:
        assert client.post("/webhooks/whatsapp", content=RAW, headers=signed(RAW)).status_code == 404
