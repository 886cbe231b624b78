"""What is redacted stays hidden, however an error writes it, and in the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import msgspec
import pytest

from oncue import OnCue, Retry
from oncue.operate import Filter, Operator
from oncue.operate.schedule import Wish
from oncue.redaction import HIDDEN, Redaction
from oncue.testing import TestClock
from oncue.web.api.acts import ACTS
from oncue.web.api.openapi import document

SECRET = 'it\'s "M\u00fcller" +49 170\\0\n'


@pytest.mark.parametrize(
    "written",
    [str, repr, ascii, json.dumps, quote, quote_plus, lambda text: json.dumps(text, ensure_ascii=False),
     lambda text: quote(text, safe=""), lambda text: urlencode({"to": text}), lambda text: repr({"phone": text})],
)  # fmt: skip
def test_an_error_does_not_tell_it_however_it_is_written(written: Callable[[str], str]) -> None:
    shown = Redaction(["phone"]).text(f"ValueError: {written(SECRET)} is wrong", {"phone": SECRET}) or ""
    assert HIDDEN in shown
    assert "170" not in shown
    assert shown.startswith("ValueError: ")
    assert shown.endswith(" is wrong")


def test_what_is_quoted_in_part_by_lines_or_beside_a_shorter_one_is_hidden_whole() -> None:
    hides, phone = Redaction(["phone", "note"]), "+49 170 9876543"
    args = {"phone": phone, "note": {"pin 4711": "first line\nsecond line"}}
    # Errors are cut at their end, tracebacks at their beginning.
    assert hides.text(f"nobody at {phone[:9]}", args) == "nobody at •••"
    assert hides.text(f"{phone[6:]} is nobody", args) == "••• is nobody"
    assert hides.text("  | first line\n  | second line", args) == "  | •••\n  | •••"
    assert hides.text("it was pin 4711", args) == "it was •••"
    assert hides.text(f"{phone}", {"phone": "170"}, args) == "•••"
    assert hides.quoted({"sent": [f"to {phone}"], "phone": 1}, args) == {"sent": ["to •••"], "phone": "•••"}
    assert hides.text("nobody is there", args) == "nobody is there"


async def test_a_result_that_quotes_it_is_shown_without_it(app: OnCue) -> None:
    @app.task(name="dial")
    async def dial(phone: str) -> dict[str, str]:
        return {"sent": f"to {phone}"}

    app.redact("phone")
    id = (await app.schedule(dial.call("+49 170 1"))).id
    await app.drain()
    assert (await Operator(app, "cli:ana").job(id)).job.result == {"sent": "to •••"}


async def test_the_database_is_not_asked_for_a_text_where_something_is_hidden(app: OnCue, operator: Operator) -> None:
    """How far it looks, and how long that takes, would tell what is hidden."""
    id = (await app.schedule(app.tasks["note"].call("hello", phone="+49 170 1"))).id
    asked: list[object] = []
    look = app.store.look

    async def watched(steps: Callable[[], Any]) -> Any:
        asked.append(getattr(steps, "args", ()))
        return await look(steps)

    for hidden in (False, True):
        if hidden:
            app.redact("phone")
        asked.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app.store, "look", watched)
            page = await Operator(app, "cli:ana").page(Filter(text="hello"))
        assert [job.id for job in page.items] == [id]
        assert ("hello" in repr(asked)) is not hidden


def test_the_description_of_the_api_has_no_default_of_what_is_hidden(app: OnCue) -> None:
    @app.task(name="call")
    async def call(phone: str = "+49 170 1", times: int = 3) -> None: ...

    described = document(ACTS, "/api", {"call": app.tasks["call"]}, {"phone"})["components"]["schemas"]["Wish"]
    properties = described["oneOf"][0]["properties"]["args"]["properties"]
    assert ("default" in properties["phone"], properties["times"]["default"]) == (False, 3)


async def test_the_checks_show_nothing_hidden(app: OnCue, clock: TestClock) -> None:
    @app.task(name="dial", retry=Retry.never())
    async def dial(phone: str) -> None:
        raise ValueError(f"nobody at {phone}")

    @app.task(name="later", retry=Retry(5))
    async def later(phone: str) -> None:
        raise ValueError(f"nobody at {phone} now")

    app.redact("phone")
    for task in (dial, later):
        await app.schedule(task.call("+49 170 1"))
    await app.drain()
    clock.advance(36_000)
    found = {one.name: one.found for one in await Operator(app, "cli:ana").checks()}
    assert "nobody at •••" in found["discarded"]
    assert "attempt 1 was retried" in found["overdue jobs"]
    assert "170" not in repr(found)


async def test_the_audit_shows_no_digest_of_what_was_sent(app: OnCue, operator: Operator) -> None:
    app.redact("phone")
    wish = Wish(task="note", args={"phone": "+49 170 1"})
    made, new = await operator.schedule(wish, "a-key")
    assert new
    (line,) = (await operator.audit()).items
    assert sorted(line.detail) == ["due", "status", "task"]
    # The same request again is known all the same.
    assert await operator.schedule(wish, "a-key") == (made, False)


async def test_what_is_nested_as_deep_as_can_be_is_shown(app: OnCue) -> None:
    @app.task(name="deep", retry=Retry.never())
    async def deep(x: object, phone: str) -> None:
        raise ValueError(f"nobody at {phone}")

    app.redact("phone")
    operator, nested = Operator(app, "cli:ana"), "end"
    for _ in range(400):
        nested = {"x": [nested], "phone": "+49 170 1"}  # type: ignore[assignment]
    made, _ = await operator.schedule(Wish(task="deep", args={"x": nested, "phone": "+49 170 1"}))
    await app.drain()
    pages = [await operator.page(Filter(text="end")), await operator.page(Filter())]
    assert [len(page.items) for page in pages] == [1, 1]
    assert "170" not in msgspec.json.encode([await operator.job(made.id), pages]).decode()
