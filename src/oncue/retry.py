"""When a failed attempt runs again: policies, per-exception rules, and what a handler may raise to decide itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from oncue.errors import ConfigError


class RetryAfter(Exception):
    """Raise in a handler: this attempt failed, run the next one after ``delay`` (seconds or timedelta)."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or f"retry after {delay}")
        self.delay = _seconds(delay, "RetryAfter")


class Snooze(Exception):
    """Raise in a handler: put the job back for ``delay`` (seconds or timedelta) without using up an attempt."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or f"snoozed for {delay}")
        self.delay = _seconds(delay, "Snooze")


class Discard(Exception):
    """Raise in a handler: give the job up now; ``reason`` is kept with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Exponential:
    """A delay that grows with each failure: ``base * factor ** (failures - 1)`` seconds, at most ``maximum``.

    With ``jitter`` the delay is drawn evenly from 0 to that value ("full jitter": Marc Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), which keeps many failed jobs from returning together.
    """

    base: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.base < 0 or self.factor < 1 or self.maximum < 0:
            raise ConfigError(f"{self!r}: base and maximum are at least 0 seconds and factor is at least 1.")

    def seconds(self, failures: int) -> float:
        """Return the delay before the next attempt after ``failures`` failed ones, in seconds."""
        # Past 2**64 the power overflows a float while the maximum has long been reached.
        ceiling = min(self.maximum, self.base * self.factor ** min(failures - 1, 64))
        return random.uniform(0, ceiling) if self.jitter else ceiling


Delay = float | timedelta | Exponential | Callable[[int, BaseException], float]
Rule = Literal["discard"] | Delay


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a task's failed attempts run again.

    ``max_attempts``: runs in all, the first included; an attempt that ended with its worker's death counts.
    ``delay``: seconds or timedelta (fixed), ``Exponential(...)``, or a function ``(failures, exception) -> seconds``.
    ``rules``: exception class -> "discard" or a delay of its own; the most specific class decides.
    Raises ConfigError for values that can't work.
    """

    max_attempts: int = 5
    delay: Delay = Exponential()
    rules: Mapping[type[BaseException], Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1_000_000:
            raise ConfigError(f"max_attempts is a whole number from 1 to 1,000,000, not {self.max_attempts!r}.")
        _check_rule(self.delay, "delay")
        for exception, rule in self.rules.items():
            if not issubclass(exception, BaseException):
                raise ConfigError(f"rules names exception classes; {exception!r} is none.")
            if rule != "discard":
                _check_rule(rule, f"rules[{exception.__name__}]")

    @classmethod
    def never(cls) -> Retry:
        """One attempt, at most once: a job whose worker dies is discarded, not run again."""
        return cls(max_attempts=1)

    def seconds(self, failures: int, error: BaseException) -> float | None:
        """Return the seconds to wait after ``failures`` failed attempts, the last with ``error``; None = discard."""
        if isinstance(error, RetryAfter):
            return error.delay
        rule: Rule = self.delay
        for cls in type(error).__mro__:
            if cls in self.rules:
                rule = self.rules[cls]
                break
        if rule == "discard":
            return None
        if isinstance(rule, Exponential):
            return rule.seconds(failures)
        if isinstance(rule, timedelta):
            return rule.total_seconds()
        if callable(rule):
            return _seconds(rule(failures, error), "the retry function's answer")
        return float(rule)


def _check_rule(rule: object, name: str) -> None:
    if isinstance(rule, Exponential) or callable(rule):
        return
    if isinstance(rule, (int, float, timedelta)) and not isinstance(rule, bool):
        _seconds(rule, name)
        return
    raise ConfigError(f"{name} is seconds, a timedelta, Exponential(...) or a function, not {rule!r}.")


def _seconds(delay: float | timedelta, name: str) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not 0 <= seconds <= 3_155_760_000:
        raise ConfigError(f"{name}: a delay is from 0 seconds to 100 years, not {delay!r}.")
    return seconds
