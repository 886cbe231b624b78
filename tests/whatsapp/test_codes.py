"""What every error code of the Cloud API means, row by row."""

from __future__ import annotations

from typing import Any, get_args

import httpx
import pytest

from oncue.transport import Verdict
from oncue.whatsapp import codes
from oncue.whatsapp.codes import Problem

ROWS: list[tuple[Verdict, str]] = [
    ("wait_channel", "130429 4 80007 131057"),
    ("wait_person", "131056"),
    ("unknown", "1 2 131000 131016"),
    ("stop_channel", "131048 131064"),
    ("refused", "130472"),
    ("no_marketing", "131050 131049"),
    ("use_template", "131047"),
    ("stop_person", "131026"),
    ("refused", "100 131008 131009 131021 131051 131053"),
    ("disable_template", "132000 132001 132005 132007 132012 132015 132016 132018"),
    ("stop_channel", "190 0 3 10 200 210 299 131005"),
    ("stop_channel", "368 131031 131042 131045 33 133000 133010 133999"),
    ("refused", "130497"),
    # What nobody listed.
    ("unknown", "5 199 300 132999 134000 131999 999999 2147483647"),
]


@pytest.mark.parametrize(("meant", "listed"), ROWS, ids=[row[1] for row in ROWS])
def test_a_row_of_the_table(meant: Verdict, listed: str) -> None:
    for code in listed.split():
        assert codes.verdict(int(code)) == meant


def test_every_code_that_is_listed_is_tested() -> None:
    tested = {int(code) for _, listed in ROWS for code in listed.split()}
    assert set(codes.CODES) <= tested
    assert all(span[0] in tested and span[-1] in tested for span, _ in codes.RANGES)


def test_no_error_code_proves_nothing() -> None:
    assert codes.verdict(None) == "unknown"


def test_a_number_that_the_token_may_not_see_stops_the_channel() -> None:
    assert codes.verdict(100, 33) == "stop_channel"
    assert codes.verdict(100, 2018001) == "refused"
    assert codes.verdict(131000, 33) == "unknown"


def test_what_failed_in_a_status_is_not_unknown() -> None:
    assert codes.status_verdict(131000) == "refused"
    assert codes.status_verdict(None) == "refused"
    assert codes.status_verdict(131026) == "stop_person"
    assert codes.status_verdict(131047) == "use_template"
    # Enough marketing for a day is no opt-out.
    assert (codes.status_verdict(131050), codes.status_verdict(131049)) == ("no_marketing", "refused")
    assert "unknown" not in {codes.status_verdict(code) for code in codes.CODES}


def test_every_verdict_is_one_of_the_protocols() -> None:
    assert set(codes.CODES.values()) <= set(get_args(Verdict))


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (httpx.ConnectError, "retry"),
        (httpx.ConnectTimeout, "retry"),
        (httpx.PoolTimeout, "retry"),
        (httpx.ProxyError, "retry"),
        (httpx.UnsupportedProtocol, "retry"),
        (httpx.ReadTimeout, "unknown"),
        (httpx.WriteTimeout, "unknown"),
        (httpx.ReadError, "unknown"),
        (httpx.WriteError, "unknown"),
        (httpx.CloseError, "unknown"),
        (httpx.RemoteProtocolError, "unknown"),
        (httpx.LocalProtocolError, "unknown"),
        (httpx.DecodingError, "unknown"),
        (RuntimeError, "unknown"),
    ],
)
def test_an_exception_of_httpx(error: type[Exception], meant: Verdict) -> None:
    assert codes.trouble(error("broken")) == meant


def test_no_exception_of_httpx_is_forgotten() -> None:
    """A new kind of httpx's that is a retry by inheritance would be one nobody thought of."""
    found: list[type[Exception]] = []
    todo: list[type[Exception]] = [httpx.TransportError]
    while todo:
        found.append(kind := todo.pop())
        todo += kind.__subclasses__()
    retried = {kind.__name__ for kind in found if codes.trouble(kind("broken")) == "retry"}
    assert retried == {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        ({"code": 4, "message": "Too many"}, Problem(4, None, "Too many")),
        ({"code": "4", "title": "Too many"}, Problem(4, None, "Too many")),
        ({"code": 100, "error_subcode": 33, "message": "No"}, Problem(100, 33, "No")),
        (
            {"code": 1, "message": "A", "title": "A", "error_data": {"details": "more"}},
            Problem(1, None, "A: more"),
        ),
        ({"code": 1, "message": "A", "error_data": {"details": "A"}}, Problem(1, None, "A")),
        ({"code": 1, "message": ["A"], "error_data": "said"}, Problem(1, None, "said")),
        ({"code": 1.5, "message": None, "error_data": None}, Problem(None, None, "")),
        ({"code": True}, Problem(None, None, "")),
        ({"code": -1}, Problem(None, None, "")),
        ({"code": 1 << 31}, Problem(None, None, "")),
        ({"code": "1e3"}, Problem(None, None, "")),
        ({}, Problem(None, None, "")),
        ("error", Problem(None, None, "")),
        (None, Problem(None, None, "")),
    ],
)
def test_an_error_is_read_as_far_as_it_goes(error: Any, problem: Problem) -> None:
    assert Problem.read(error) == problem


def test_a_long_reason_is_cut() -> None:
    assert len(Problem.read({"code": 1, "message": "x" * 9_999}).reason) == codes.REASON
