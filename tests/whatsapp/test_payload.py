"""The bodies of requests, and what may stand in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncue.errors import InvalidJob
from oncue.transport import Address, Choices, Content, Option, Outgoing, Template, Text
from oncue.whatsapp import payload

ANA = Address("16505550100")


def body(content: Content, to: Address = ANA, echo: str = "v1:abc:1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(payload.body(Outgoing(to, content, echo)))
    assert found.pop("messaging_product") == "whatsapp"
    assert found.pop("recipient_type") == "individual"
    assert found.pop("biz_opaque_callback_data") == echo
    return found


def options(count: int, title: str = "Answer {}", **more: str) -> tuple[Option, ...]:
    return tuple(Option(f"ref:{number}", title.format(number), **more) for number in range(count))


def test_a_text() -> None:
    assert body(Text("Größe 👍")) == {"to": "16505550100", "type": "text", "text": {"body": "Größe 👍"}}


def test_to_a_user_id() -> None:
    assert body(Text("Hi"), Address(None, "US.134")) == {"recipient": "US.134", "type": "text", "text": {"body": "Hi"}}
    assert "recipient" not in body(Text("Hi"), Address("16505550100", "US.134"))


def test_up_to_three_short_choices_are_buttons() -> None:
    assert body(Choices("Which?", options(2))) == {
        "to": "16505550100",
        "type": "interactive",
        "interactive": {
            "type": "button",
            "body": {"text": "Which?"},
            "action": {
                "buttons": [
                    {"type": "reply", "reply": {"id": "ref:0", "title": "Answer 0"}},
                    {"type": "reply", "reply": {"id": "ref:1", "title": "Answer 1"}},
                ]
            },
        },
    }


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        (Choices("Which?", options(3)), "button"),
        (Choices("Which?", options(4)), "list"),
        (Choices("Which?", options(2, "{}" + "x" * 19)), "button"),
        (Choices("Which?", options(2, "{}" + "x" * 20)), "list"),
        (Choices("Which?", options(2, description="more of it")), "list"),
        (Choices("x" * 1024, options(3)), "button"),
        (Choices("x" * 4096, options(4)), "list"),
        (Choices("Which?", options(10, "{}" + "x" * 23, description="x" * 72)), "list"),
    ],
)
def test_choices_are_buttons_where_they_fit(choices: Choices, kind: str) -> None:
    assert body(choices)["interactive"]["type"] == kind


def test_more_choices_are_a_list() -> None:
    choices = Choices("Which?", (*options(3), Option("ref:9", "Last", "the last one")), button="Levels")
    assert body(choices)["interactive"] == {
        "type": "list",
        "body": {"text": "Which?"},
        "action": {
            "button": "Levels",
            "sections": [
                {
                    "rows": [
                        {"id": "ref:0", "title": "Answer 0"},
                        {"id": "ref:1", "title": "Answer 1"},
                        {"id": "ref:2", "title": "Answer 2"},
                        {"id": "ref:9", "title": "Last", "description": "the last one"},
                    ]
                }
            ],
        },
    }


def test_a_template() -> None:
    assert body(Template("hello", "pt_BR"))["template"] == {"name": "hello", "language": {"code": "pt_BR"}}
    assert body(Template("trial_over", parameters=("Ana", "7")))["template"] == {
        "name": "trial_over",
        "language": {"code": "en"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "Ana"}, {"type": "text", "text": "7"}]}
        ],
    }


def test_typing() -> None:
    assert json.loads(payload.typing_body("wamid.1")) == {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.1",
        "typing_indicator": {"type": "text"},
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Text(""), "A text is empty"),
        (Text(" \n\t"), "A text is empty"),
        (Text("x" * 4097), "A text has 4097 characters; WhatsApp takes at most 4096"),
        (Choices("Which?", ()), "1 to 10 choices .* not 0"),
        (Choices("Which?", options(11)), "1 to 10 choices .* not 11"),
        (Choices("", options(2)), "The text above buttons is empty"),
        (Choices("x" * 1025, options(3)), "The text above buttons has 1025 characters"),
        (Choices("x" * 4097, options(4)), "The text above a list has 4097 characters"),
        (Choices("Which?", options(2, "{}" + "x" * 24)), "title of a choice has 25 characters; .* at most 24"),
        (Choices("Which?", options(2, "")), "title of a choice is empty"),
        (Choices("Which?", options(2, "same")), "the same titles: 'same'"),
        (Choices("Which?", (Option("a", "One"), Option("a", "Two"))), "the same ids: 'a'"),
        (Choices("Which?", (Option("", "One"),)), "id of a choice is empty"),
        (Choices("Which?", (Option("x" * 257, "One"),)), "id of a choice has 257 characters"),
        (Choices("Which?", (*options(3), Option("x" * 201, "One"))), "id of a choice has 201 characters"),
        (Choices("Which?", options(2, description="x" * 73)), "description of a choice has 73 characters"),
        (Choices("Which?", options(4), button=""), "label that opens a list is empty"),
        (Choices("Which?", options(4), button="x" * 21), "label that opens a list has 21 characters"),
        (Template(""), "A template's name .* not ''"),
        (Template("Trial over"), "A template's name .* not 'Trial over'"),
        (Template("x" * 513), "A template's name"),
        (Template("hello", "english"), "A template's language .* not 'english'"),
        (Template("hello", "en-US"), "A template's language .* not 'en-US'"),
        (Template("hello", parameters=("a", "")), "Parameter 2 of the template hello is empty"),
        (Template("hello", parameters=("a\nb",)), "Parameter 1 of the template hello has a line break"),
        (Template("hello", parameters=("a     b",)), "Parameter 1 of the template hello has a line break"),
        (Template("hello", parameters=("x" * 1025,)), "Parameter 1 of the template hello has 1025 characters"),
    ],
)
def test_what_whatsapp_would_refuse_is_refused_with_what_to_change(content: Content, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        payload.check(content)
    with pytest.raises(InvalidJob, match=says):
        payload.body(Outgoing(ANA, content, "v1:abc:1"))


def test_the_edge_of_each_limit_is_within() -> None:
    for content in (
        Text("x" * 4096),
        Choices("Which?", (Option("x" * 256, "x" * 20),)),
        Choices("Which?", (*options(3), Option("x" * 200, "x" * 24, "x" * 72)), button="x" * 20),
        Template("x" * 512, "fil", ("x" * 1024, "a    b")),
    ):
        payload.check(content)
        body(content, echo="x" * 512)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Outgoing(Address(), Text("Hi"), "e"), "no recipient"),
        (Outgoing(Address("", ""), Text("Hi"), "e"), "no recipient"),
        (Outgoing(ANA, Text("Hi"), "x" * 513), "The echo has 513 characters"),
        (Outgoing(ANA, Text("half \ud83d of it"), "e"), "half a character"),
    ],
)
def test_what_can_t_be_sent_is_refused(message: Outgoing, says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        payload.body(message)


def test_a_long_text_is_not_shown_whole() -> None:
    with pytest.raises(InvalidJob) as refusal:
        payload.check(Text("secret " * 1000))
    assert len(str(refusal.value)) < 200
