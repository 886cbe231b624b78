"""What is redacted stays hidden, however an error writes it, and in the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest

from oncue import OnCue
from oncue.operate import Operator
from oncue.operate.schedule import Wish
from oncue.operate.shape import HIDDEN, Redaction

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
