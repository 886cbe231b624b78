"""Which jobs: the same options for a list and for an action on many."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import click
import msgspec

from oncue.clock import SECOND, SystemClock
from oncue.errors import InvalidTime
from oncue.operate import Filter
from oncue.operate.shape import from_iso, iso
from oncue.operate.views import StateFilter

F = TypeVar("F", bound=Callable[..., Any])
STATES: tuple[str, ...] = get_args(StateFilter)
_SPAN = re.compile(r"([+-])(\d{1,9}(?:\.\d{1,6})?)(s|m|h|d)", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Time(click.ParamType[str]):
    """A time, as RFC 3339 with its zone, or as seen from now: ``-2h`` is two hours ago, ``+10m`` in ten minutes."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it in RFC 3339, UTC."""
        if (span := _SPAN.fullmatch(value)) is not None:
            away = round(float(span[2]) * _UNITS[span[3]] * SECOND)
            return self._told(SystemClock().now() + (away if span[1] == "+" else -away), value, param, ctx)
        try:
            return self._told(from_iso(value), value, param, ctx)
        except InvalidTime as error:
            self.fail(f"{error} Or as seen from now: -2h, +10m (s, m, h, d).", param, ctx)

    def _told(self, us: int, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return iso(us)
        except (OverflowError, ValueError, OSError):
            self.fail(f"{value!r} is beyond what a calendar holds.", param, ctx)


TIME = Time()


def filters(command: F) -> F:
    """Let a command take all that a filter of jobs has, but for its state and key, which commands take in their way."""
    for option in reversed(
        (
            click.option("--task", help="Only this task."),
            click.option("--queue", help="Only this queue."),
            click.option("--group", help="Only this group."),
            click.option("--due-after", type=TIME, help="Only what is due then or later: a time, or -2h, +10m."),
            click.option("--due-before", type=TIME, help="Only what is due before."),
            click.option("--finished-after", type=TIME, help="Only what ended then or later."),
            click.option("--finished-before", type=TIME, help="Only what ended before."),
            click.option("--late", is_flag=True, help="Only what is due for more than a second and does not run."),
            click.option("--text", help="Only with this text in arguments, metadata, key or error."),
        )
    ):
        command = option(command)
    return command


state_option = click.option("--state", type=click.Choice(STATES), help="Only in this state.")


def filter_of(given: Mapping[str, Any]) -> Filter:
    """Return a filter of what was given. Raises UsageError for what can't be one."""
    wanted = {name: value for name, value in given.items() if value not in (None, False)}
    for name, value in wanted.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise click.UsageError(f"--{name.replace('_', '-')} is no text in UTF-8.") from None
    try:
        return msgspec.convert(wanted, Filter)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"That is no filter: {error}.") from error
