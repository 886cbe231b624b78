"""What each error of the Cloud API means for the message, and for what may be sent next.

The HTTP status says nothing reliable: the same code comes with different ones. Codes as listed at
developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oncue.transport import Verdict

REASON = 500
"""So many characters of an error's text are kept."""

RANGES: tuple[tuple[range, Verdict], ...] = (
    # What an access token lacks.
    (range(200, 300), "stop_channel"),
    # The registration of the number.
    (range(133_000, 134_000), "stop_channel"),
)


def _table(rows: Mapping[Verdict, Iterable[int]]) -> dict[int, Verdict]:
    return {code: verdict for verdict, codes in rows.items() for code in codes}


CODES: Mapping[int, Verdict] = _table(
    {
        "wait_channel": (4, 80_007, 130_429, 131_057),
        "wait_person": (131_056,),
        # Ambiguous by their own texts: "unknown error", "service unavailable", "something went wrong".
        "unknown": (1, 2, 131_000, 131_016),
        "stop_channel": (
            *(0, 3, 10, 190, 131_005),  # the token
            *(131_048, 131_064),  # too many people complained
            *(33, 368, 131_031, 131_042, 131_045),  # the account, the number, or what it owes
        ),
        "stop_person": (131_026,),
        "no_marketing": (131_050, 131_049),
        "use_template": (131_047,),
        "disable_template": (
            *(132_000, 132_001, 132_005, 132_007),
            *(132_012, 132_015, 132_016, 132_018),
        ),
        "refused": (
            *(100, 131_008, 131_009, 131_021, 131_051, 131_053),  # what we sent is wrong
            130_472,  # the person takes part in an experiment of Meta's
            130_497,  # a country where this is not allowed
        ),
    }
)


WAITS: Mapping[int, float] = {131_049: 86_400}
"""Seconds before another try: a person has had enough marketing for now, of whomever, and didn't opt out of ours."""


def verdict(code: int | None, subcode: int | None = None) -> Verdict:
    """Tell what came of a request that was answered with this error.

    A code that nobody listed, or none at all, proves nothing about the message: "unknown", which costs a wait, while a
    wrong "retry" would cost a duplicate and a wrong "refused" a stalled conversation.
    """
    if code is None:
        return "unknown"
    if (code, subcode) == (100, 33):
        # The Graph API's words for a phone number id that doesn't exist, or that the token may not see.
        return "stop_channel"
    if (known := CODES.get(code)) is not None:
        return known
    return next((meaning for codes, meaning in RANGES if code in codes), "unknown")


def status_verdict(code: int | None) -> Verdict:
    """Tell what the error in a ``failed`` status means: the message was taken and came to nothing.

    That is known by then, so nothing is left "unknown": what the code doesn't tell is "refused". So is what only would
    have had to wait, since a status has no place to say how long.
    """
    found = verdict(code)
    return "refused" if found == "unknown" or code in WAITS else found


def trouble(error: Exception) -> Verdict:
    """Tell what an exception (of httpx) says about the request: "retry" only where it was certainly not sent."""
    import httpx

    # Those of a proxy arise while the tunnel is made, before the request.
    before = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
    return "retry" if isinstance(error, before) else "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the Cloud API tells it, in an answer, a status or an update. ``reason`` is for people."""

    code: int | None
    subcode: int | None
    reason: str

    @classmethod
    def read(cls, error: object) -> Problem:
        """Read an error object. What isn't there, or is no error object at all, is None or empty."""
        if not isinstance(error, Mapping):
            return cls(None, None, "")
        data = error.get("error_data")
        said = [error.get("message") or error.get("title"), data.get("details") if isinstance(data, Mapping) else data]
        texts = [text for text in said if isinstance(text, str) and text]
        reason = ": ".join(dict.fromkeys(texts))
        return cls(_number(error.get("code")), _number(error.get("error_subcode")), reason[:REASON])


def _number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        found = int(value)
    else:
        return None
    # Wider than any code, and within what the databases' columns hold.
    return found if 0 <= found < 1 << 31 else None
