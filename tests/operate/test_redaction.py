"""What is redacted stays hidden, however an error writes it, and in the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import msgspec
import pytest

from oncue import OnCue, Retry
from oncue.operate import Filter, Operator
from oncue.operate.schedule import Wish
from oncue.redaction import HIDDEN, Redaction

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
