"""Which updates are genuine, and the handshake."""

from __future__ import annotations

import json

import pytest

from oncue.whatsapp import WhatsApp, signature

NUMBER = "100000000000001"
TOKEN, SECRET, VERIFY = "a-token", "an-app-secret", "a-verify-token"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APP_SECRET", "VERIFY_TOKEN", "PROVIDER", "PHONE_NUMBER_ID"):
        monkeypatch.delenv(f"WHATSAPP_{name}", raising=False)


def number() -> WhatsApp:
    return WhatsApp(TOKEN, NUMBER, SECRET, VERIFY)


def signed(raw: bytes, *secrets: str) -> dict[str, str]:
    return {signature.HEADER: signature.sign(secrets[0].encode(), raw)}


def test_a_known_signature() -> None:
    # RFC 4231, test case 2.
    known = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    raw = b"what do ya want for nothing?"
    assert signature.sign(b"Jefe", raw) == known
    assert signature.genuine([b"Jefe"], known, raw)
    assert signature.genuine([b"other", b"Jefe"], f" {known} ", raw)
    assert not signature.genuine([b"Jefe"], known, raw + b" ")
    assert not signature.genuine([b"Jefe"], known.upper(), raw)
    assert not signature.genuine([b"Jefe"], known.removeprefix("sha256="), raw)
    assert not signature.genuine([], known, raw)


@pytest.mark.parametrize("given", ["", "sha256=", "sha1=5bdc", "sha256=\udcff", "é", "sha256=" + "0" * 64])
def test_what_is_no_signature(given: str) -> None:
    assert not number().genuine({signature.HEADER: given}, b"{}")
    assert not number().genuine({}, b"{}")


def test_it_is_the_bytes_that_are_signed() -> None:
    raw = b'{"text":"Gr\\u00fc\\u00dfe \\/"}'
    rewritten = json.dumps(json.loads(raw)).encode()
    whatsapp = number()
    assert rewritten != raw
    assert whatsapp.genuine(signed(raw, SECRET), raw)
    assert not whatsapp.genuine(signed(raw, SECRET), rewritten)


def test_while_a_secret_is_replaced_both_are_good() -> None:
    for secrets in ("new,old", ["new", "old"], " new , old ,"):
        whatsapp = WhatsApp(TOKEN, NUMBER, secrets)
        assert whatsapp.genuine(signed(b"{}", "new"), b"{}")
        assert whatsapp.genuine(signed(b"{}", "old"), b"{}")
        assert not whatsapp.genuine(signed(b"{}", "older"), b"{}")
        assert not whatsapp.genuine(signed(b"{}", ""), b"{}")


def test_without_a_secret_nothing_is_genuine_and_the_log_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    whatsapp = WhatsApp(TOKEN, NUMBER)
    assert not whatsapp.genuine(signed(b"{}", ""), b"{}")
    assert whatsapp.handshake({"hub.mode": "subscribe", "hub.verify_token": "", "hub.challenge": "1"}) is None
    assert not WhatsApp(TOKEN, provider="360dialog").genuine({"authorization": "Bearer None"}, b"{}")
    said = [record.getMessage() for record in caplog.records]
    missing = ["WHATSAPP_APP_SECRET", "WHATSAPP_VERIFY_TOKEN", "WHATSAPP_VERIFY_TOKEN"]
    assert [name in text for name, text in zip(missing, said, strict=True)] == [True] * 3


def test_360dialog_shows_the_verify_token() -> None:
    whatsapp = WhatsApp(TOKEN, None, SECRET, VERIFY, provider="360dialog")
    assert whatsapp.genuine({"authorization": f"Bearer {VERIFY}"}, b"{}")
    for headers in ({}, {"authorization": VERIFY}, {"authorization": "Bearer é"}, signed(b"{}", SECRET)):
        assert not whatsapp.genuine(headers, b"{}")


def test_the_handshake() -> None:
    asked = {"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": "1158201444"}
    whatsapp = number()
    assert whatsapp.handshake(asked) == "1158201444"
    for wrong in ({"hub.mode": "unsubscribe"}, {"hub.verify_token": "wrong"}, {"hub.verify_token": "é"}):
        assert whatsapp.handshake({**asked, **wrong}) is None
    assert whatsapp.handshake({"hub.mode": "subscribe", "hub.verify_token": VERIFY}) is None


def test_what_is_for_another_number_of_the_account_is_noted() -> None:
    value = {"metadata": {"phone_number_id": "7"}, "messages": [{"id": "wamid.1", "from": "1", "type": "sticker"}]}
    raw = json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()
    batch = number().read(raw)
    assert batch.inbound == []
    assert "phone number id 7" in batch.unread[0]
    assert len(WhatsApp(TOKEN, provider="360dialog").read(raw).inbound) == 1


def test_nothing_secret_is_in_its_repr() -> None:
    whatsapp = number()
    shown = repr(whatsapp) + str(whatsapp) + repr(whatsapp._options)
    assert not [secret for secret in (TOKEN, SECRET, VERIFY) if secret in shown]
