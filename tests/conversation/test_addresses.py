"""Addresses as people write them, and as channels know them."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncue import OnCue
from oncue.conversation import Chat, Conversation
from oncue.conversation.care import People
from oncue.errors import InvalidJob
from oncue.store.chats import PersonRow
from oncue.store.steps import Steps, files
from oncue.telegram import Telegram
from oncue.transport import Address
from oncue.whatsapp import WhatsApp


@pytest.fixture
def whatsapp() -> WhatsApp:
    return WhatsApp("local-token", "1", "local-secret", "verify", url="http://127.0.0.1:9")


@pytest.fixture
def telegram() -> Telegram:
    return Telegram("42:token", "secret", url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "written",
    [
        "16505550100",
        "+16505550100",
        "+1 650 555 0100",
        "+1 (650) 555-0100",
        " 1.650.555.0100\n",
        "+1\u00a0650/555\u20110100",
    ],
)
def test_a_phone_number_is_its_digits(whatsapp: WhatsApp, written: str) -> None:
    assert whatsapp.address(written) == Address("16505550100")


def test_a_user_id_is_one(whatsapp: WhatsApp) -> None:
    assert whatsapp.address("US.13491208655302741918") == Address(None, "US.13491208655302741918")


@pytest.mark.parametrize(
    "wrong",
    ["", "Ana", "+1 650 CALL NOW", "0049 157 0000001", "0157 1234567", "123456", "1" * 16, "++16505550100", "١٢٣٤٥٦٧٨"],
)
def test_what_is_no_phone_number_is_refused_in_plain_words(whatsapp: WhatsApp, wrong: str) -> None:
    with pytest.raises(InvalidJob, match="no phone number with its country code, such as"):
        whatsapp.address(wrong)


@pytest.mark.parametrize("wrong", ["@ana", "+1 650 555 0100", "-42", "0", "4" * 17])
def test_what_is_no_chat_is_refused_in_plain_words(telegram: Telegram, wrong: str) -> None:
    assert telegram.address(" 42 ") == Address("42")
    with pytest.raises(InvalidJob, match="no Telegram chat: that is a number"):
        telegram.address(wrong)


def declared(url: str, transport: WhatsApp | Telegram) -> tuple[OnCue, Conversation]:
    app = OnCue(url)

    @app.conversation("trial", channel=transport)
    async def trial(chat: Chat) -> None:
        await chat.ask("name", "Who are you?")

    return app, trial


async def person_of(app: OnCue, chat: int) -> PersonRow:
    def steps() -> Steps[list[PersonRow]]:
        return (yield from files.people(f"p{chat}", None))

    (found,) = await app.store.look(steps)
    return found


async def test_code_starts_by_an_address_as_people_write_it(tmp_path: Path, whatsapp: WhatsApp) -> None:
    app, trial = declared(f"sqlite:///{tmp_path}/jobs.db", whatsapp)
    async with app:
        await trial.start("+1 650 555 0100")
        assert (await person_of(app, 1)).address == "16505550100"
        with pytest.raises(InvalidJob, match="is in a conversation already"):
            await trial.start("1-650-555-0100")
        await trial.start("US.1349")
        only = await person_of(app, 2)
        assert (only.address, only.user_id) == (None, "US.1349")
        with pytest.raises(InvalidJob, match="'0157 123' is no phone number"):
            await trial.start("0157 123")
        assert len(await People(app).find("p3")) == 0


@pytest.mark.parametrize("known", [True, False], ids=["with the channel", "by the database alone"])
async def test_operators_find_people_by_what_they_write(tmp_path: Path, whatsapp: WhatsApp, known: bool) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    app, trial = declared(url, whatsapp)
    async with app:
        await trial.start("16505550100")
        await trial.start("US.1349")
    async with app if known else OnCue(url) as again:
        people = People(again)
        for written in ("+1 650 555 0100", "+1 (650) 555-0100", "16505550100", " p1 "):
            assert [one.id for one in await people.find(written)] == [1], written
            assert [one.id for one in await people.find(written, "whatsapp")] == [1], written
        assert [one.id for one in await people.find("US.1349")] == [2]
        assert await people.find("+1 650 555 0199") == []
        assert await people.find("16505550100", "telegram") == []
