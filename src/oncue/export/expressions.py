"""A ``Cron`` in the words of each target, or the reason why it has none.

Sources: POSIX crontab for five fields; the AWS reference of EventBridge cron expressions; systemd.time(7), "calendar
events".
"""

from __future__ import annotations

from oncue.cron import Cron
from oncue.errors import ConfigError

_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_ALL_DAYS = "*"


class CannotExport(ConfigError):
    """The target can't keep this schedule, or can't call this address; the message says why and what would do."""


def five_fields(cron: Cron, target: str) -> str:
    """``minute hour day month weekday``, in what every five field cron reads alike."""
    _whole_minutes(cron, target)
    spec = cron.spec
    if special := spec.day.special + spec.weekday.special:
        raise CannotExport(
            f"{target} does not know {', '.join(special)} in {cron.expression!r}. Write plain days of the month or "
            "weekdays, or let OnCue keep this schedule and export a plain one that calls it"
        )
    if "*/" in spec.day.text + spec.weekday.text and _ALL_DAYS not in (spec.day.text, spec.weekday.text):
        raise CannotExport(
            f"{cron.expression!r} restricts both day fields, one of them by a step, and crons disagree "
            "whether both must match. Restrict one of them only"
        )
    return " ".join(part.text for part in (spec.minute, spec.hour, spec.day, spec.month, spec.weekday))


def eventbridge(cron: Cron) -> str:
    """``cron(minute hour day month weekday year)``: Sunday is 1, and one of the day fields has to be ``?``."""
    _whole_minutes(cron, "EventBridge")
    spec = cron.spec
    if _ALL_DAYS not in (spec.day.text, spec.weekday.text):
        raise CannotExport(
            f"EventBridge takes a day of the month or a weekday, not both, as {cron.expression!r} has. "
            "Export two schedules"
        )
    for part in (spec.day, spec.weekday):
        if part.special and (len(part.special) > 1 or part.numbers or part.special[0] == "LW"):
            raise CannotExport(
                f"EventBridge takes a single L, 15W, 5L or 5#2, not {part.text!r} in {cron.expression!r}. "
                "Export one schedule for each"
            )
    weekday = ",".join(_WEEKDAYS[day] for day in spec.weekday.numbers)
    if spec.weekday.special:
        day, rest = spec.weekday.special[0][0], spec.weekday.special[0][1:]
        weekday = f"{int(day) + 1}{rest}"
    by_weekday = spec.weekday.text != _ALL_DAYS
    fields = [
        spec.minute.text.replace("*/", "0/"),
        spec.hour.text.replace("*/", "0/"),
        "?" if by_weekday else spec.day.text.replace("*/", "1/"),
        spec.month.text.replace("*/", "1/"),
        weekday if by_weekday else "?",
        "*",
    ]
    return f"cron({' '.join(fields)})"


def on_calendar(cron: Cron) -> list[str]:
    """``OnCalendar=`` values that together are the schedule: systemd joins a weekday and a date by "and" only."""
    spec = cron.spec
    month = _dotted(spec.month.numbers, 1, 12)
    dates = [f"*-{month}-{_dotted(spec.day.numbers, 1, 31)}"] if spec.day.numbers else []
    for special in spec.day.special:
        if special != "L":
            raise CannotExport(f"systemd has no word for {special} in {cron.expression!r}. Write plain days, or L")
        dates.append(f"*-{month}~01")
    weekdays = [f"{_week(spec.weekday.numbers)} *-{month}-*"] if spec.weekday.numbers else []
    weekdays += [_weekday_of_month(special, month) for special in spec.weekday.special]
    if spec.weekday.text == _ALL_DAYS:
        days = dates
    elif spec.day.text == _ALL_DAYS:
        days = weekdays
    elif not (spec.day.star or spec.weekday.star):
        days = dates + weekdays
    elif spec.weekday.special:
        raise CannotExport(
            f"systemd cannot join {spec.weekday.text} with a step of days in {cron.expression!r}. Use one"
        )
    else:
        days = [f"{_week(spec.weekday.numbers)} {date}" for date in dates]
    ranges = ((spec.hour.numbers, 23), (spec.minute.numbers, 59), (spec.second.numbers, 59))
    time = ":".join(_dotted(numbers, 0, high) for numbers, high in ranges)
    return [f"{day} {time} {cron.timezone}" for day in days]


def _whole_minutes(cron: Cron, target: str) -> None:
    if cron.finest_interval_seconds() < 60:
        raise CannotExport(
            f"{cron.expression!r} fires every {cron.finest_interval_seconds():g} s, but {target} starts "
            "at most once a minute. Export '* * * * *' and run a worker for what has to be finer"
        )
    if cron.spec.second.numbers != (0,):
        raise CannotExport(
            f"{cron.expression!r} fires at second {cron.spec.second.text}, but {target} knows whole minutes. "
            "Use second 0"
        )


def _dotted(numbers: tuple[int, ...], low: int, high: int) -> str:
    """Numbers as systemd writes them: ``*``, or two digits, commas and ``..``."""
    if len(numbers) == high - low + 1:
        return "*"
    return ",".join(f"{number:02}" for number in numbers)


def _week(numbers: tuple[int, ...]) -> str:
    # systemd's week begins on Monday.
    return ",".join(_WEEKDAYS[day].capitalize() for day in sorted(numbers, key=lambda day: (day + 6) % 7))


def _weekday_of_month(special: str, month: str) -> str:
    """``5L`` is a Friday among the last seven days; ``5#2`` is one among the second seven."""
    name = _WEEKDAYS[int(special[0])].capitalize()
    if special.endswith("L"):
        return f"{name} *-{month}~07/1"
    first = int(special[2:]) * 7 - 6
    return f"{name} *-{month}-{first:02}..{min(first + 6, 31)}"
