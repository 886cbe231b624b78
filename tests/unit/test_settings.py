"""Settings: what the environment says, and what is refused with the variable's name."""

from __future__ import annotations

import pytest

from oncue.errors import ConfigError
from oncue.settings import DEFAULT_URL, Settings, secrets_of

LONG = "0123456789abcdef"


def test_without_an_environment_the_defaults_hold() -> None:
    found = Settings.from_environment({})
    assert (found.database_url, found.redis_url, found.cron_secrets) == (DEFAULT_URL, None, ())
    assert found == Settings()
    assert Settings.from_environment({"DATABASE_URL": "", "CRON_SECRET": "", "ONCUE_CRON_LIMIT": " "}) == Settings()


def test_each_variable_is_read() -> None:
    found = Settings.from_environment(
        {
            "DATABASE_URL": "sqlite:///x.db",
            "REDIS_URL": "redis://h",
            "CRON_SECRET": f" {LONG} , {LONG}2\n",
            "ONCUE_CRON_LIMIT": "5",
            "ONCUE_CRON_SECONDS": "2.5",
            "ONCUE_CRON_GRACE": "0",
        }
    )
    assert (found.database_url, found.redis_url) == ("sqlite:///x.db", "redis://h")
    assert found.cron_secrets == (LONG.encode(), LONG.encode() + b"2")
    assert (found.cron_limit, found.cron_seconds, found.cron_grace) == (5, 2.5, 0.0)


def test_no_secret_is_shown() -> None:
    shown = repr(Settings("postgresql://u:password@h/d", "redis://:password@h", secrets_of(LONG)))
    assert "password" not in shown
    assert LONG not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ONCUE_CRON_LIMIT", "0"),
        ("ONCUE_CRON_LIMIT", "1.5"),
        ("ONCUE_CRON_LIMIT", "many"),
        ("ONCUE_CRON_SECONDS", "0"),
        ("ONCUE_CRON_SECONDS", "nan"),
        ("ONCUE_CRON_SECONDS", "inf"),
        ("ONCUE_CRON_GRACE", "-1"),
        ("ONCUE_CRON_GRACE", "nan"),
        ("CRON_SECRET", "too-short"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("inside", ["two words", "tab\there", "line\nbreak", "umlaut-\u00fc"])
def test_a_secret_that_no_header_keeps_is_refused(inside: str) -> None:
    with pytest.raises(ConfigError, match="which no header keeps"):
        secrets_of(f"{LONG}{inside}{LONG}")


@pytest.mark.parametrize(
    "fields", [{"cron_limit": 0}, {"cron_limit": True}, {"cron_seconds": 0.0}, {"cron_grace": float("nan")}]
)
def test_settings_made_in_code_are_checked_too(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Settings(**fields)  # type: ignore[arg-type]


def test_a_secret_is_counted_when_one_of_several_is_bad() -> None:
    with pytest.raises(ConfigError, match=r"number 2 of 2\) has 5 characters"):
        secrets_of(f"{LONG},short")
