"""PostgreSQL URLs: what is taken from them, what is passed on, and that no error shows a password."""

from __future__ import annotations

import pytest

from oncue.channel import channel_of, hint_text, is_probe, probe_text, read_hint
from oncue.dsn import is_postgres, parse
from oncue.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "dsn", "schema"),
    [
        ("postgresql://u:p%40x@h/db?schema=app", "postgresql://u:p%40x@h/db", "app"),
        ("postgres://h", "postgresql://h", "oncue"),
        ("postgresql+asyncpg://u@h/db?ssl=require", "postgresql://u@h/db?sslmode=require", "oncue"),
        ("postgresql+psycopg:///db?host=/tmp/x&port=5", "postgresql:///db?host=/tmp/x&port=5", "oncue"),
        ("postgresql://[::1]:5432,h2:12/db", "postgresql://[::1]:5432,h2:12/db", "oncue"),
        ("postgresql://h/db?options=-c%20x%3D1&schema=_a1", "postgresql://h/db?options=-c%20x%3D1", "_a1"),
    ],
)
def test_a_url_is_passed_on_but_for_our_own_options(url: str, dsn: str, schema: str) -> None:
    found = parse(url)
    assert is_postgres(url)
    assert (found.dsn, found.schema, found.ignored, found.pooled) == (dsn, schema, (), False)


def test_options_that_the_driver_would_hand_to_the_server_are_left_out_and_named() -> None:
    found = parse("postgresql://h/db?sslmode=require&channel_binding=require&connect_timeout=5&pgbouncer=true")
    assert found.dsn == "postgresql://h/db?sslmode=require"
    assert found.ignored == ("channel_binding", "connect_timeout")
    assert found.pooled


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@h/db",
        "postgresql://u:se%40cret@h/db?password=secret&sslpassword=secret",
        "postgresql:///db?password=secret",
    ],
)
def test_what_is_shown_has_no_password_and_still_tells_where(url: str) -> None:
    shown = parse(url).shown
    assert "cret" not in shown
    assert "***" in shown
    assert "/db" in shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:u:secret@h/db", "no PostgreSQL URL"),
        ("mysql://u:secret@h/db", "no PostgreSQL URL"),
        ("postgresql://u:secret@[::1/db", "no usable URL"),
        ("postgresql://u:secret@h/db?schema", "no usable URL"),
        ("postgresql://u:secret@h/db?shema=app", "unknown option 'shema' in the URL; did you mean schema?"),
        ("postgresql://u:secret@h/db?PgBouncer=true", "unknown option 'PgBouncer' in the URL; did you mean pgbouncer?"),
        ("postgresql://u:se@cret@h/db", "%40"),
        ("postgresql://u:se#cret@h/db", "%23"),
        ("postgresql://u:se/cret@h/db", "%2F"),
        ("postgresql://u:secret@h:99999/db", "no usable host"),
        ("postgresql://u:secret@h:0/db", "no usable host"),
        ("postgresql://u:secret@h/db?schema=", "schema"),
        ("postgresql://u:secret@h/db?schema=App", "small letters"),
        ("postgresql://u:secret@h/db?schema=1a", "small letters"),
        ("postgresql://u:secret@h/db?schema=pg_app", "pg_"),
        ("postgresql://u:secret@h/db?schema=information_schema", "schema"),
        (f"postgresql://u:secret@h/db?schema={'a' * 49}", "48"),
        ("postgresql://u:secret@h/db?schema=a%22%3Bdrop", "small letters"),
        ("postgresql://u:secret@h/db?oncue_shema=a", "oncue_shema"),
        ("postgresql://u:secret@h/db?pgbouncer=yes", "true or false"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_write_and_no_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(url)
    assert said in str(refused.value)
    assert "cret" not in str(refused.value)


def test_the_channel_of_the_longest_schema_fits() -> None:
    schema = parse(f"postgresql://h/db?schema={'a' * 48}").schema
    assert len(channel_of(schema)) < 64
    assert channel_of(schema) != channel_of(schema[:-1])


@pytest.mark.parametrize("due", [None, 0, 1_800_000_000_000_000, 2**63 - 1])
def test_a_hint_is_read_as_it_was_sent(due: int | None) -> None:
    assert read_hint(hint_text(due)) == due
    assert not is_probe(hint_text(due))
    assert is_probe(probe_text("x"))


@pytest.mark.parametrize("payload", ["-1", " 1", "1_0", "१", "9" * 20, "probe:1", "x"])
def test_any_other_text_is_read_as_something_changed(payload: str) -> None:
    assert read_hint(payload) is None
