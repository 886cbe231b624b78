"""Declaring: tasks, schedules, sources, resources. The part of OnCue that runs at import time."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from oncue.cron import Cron, Every
from oncue.errors import ConfigError
from oncue.job import OnRetry, WhenLate
from oncue.limits import Limit, Policy, Rules
from oncue.planner import Schedule
from oncue.retry import Retry
from oncue.task import DiscardHook, Missed, Overlap, Task, TaskDecorator, TaskOptions, as_decorator, make_task

F = TypeVar("F", bound=Callable[[], Any])
Provider = Callable[[], AsyncIterator[Any] | Iterator[Any]]


class Declarations:
    """What an application declares. ``OnCue`` is this with a store."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.schedules: dict[str, Schedule] = {}
        self.queues: dict[str, Rules] = {}
        self.providers: dict[type, Provider] = {}
        self.start_hooks: list[Callable[[], Awaitable[None] | None]] = []
        self.stop_hooks: list[Callable[[], Awaitable[None] | None]] = []

    @property
    def policy(self) -> Policy:
        """All limits, as a claim must respect them."""
        tasks = {name: task.options.rules for name, task in self.tasks.items() if task.options.rules}
        return Policy(tasks, {name: rules for name, rules in self.queues.items() if rules})

    def task(
        self,
        *,
        name: str | None = None,
        aliases: tuple[str, ...] = (),
        retry: Retry = Retry(),  # noqa: B008 - frozen
        timeout: float | None = None,
        queue: str = "default",
        priority: int = 0,
        limit: Limit | None = None,
        group_limit: Limit | None = None,
        concurrency: int | None = None,
        max_late: float | timedelta | None = None,
        when_late: WhenLate = "run",
        on_retry: OnRetry = "hold",
        retention: float | timedelta | None = None,
        on_discard: DiscardHook | None = None,
    ) -> TaskDecorator:
        """Register a function as a task: ``@app.task()``, with its policy.

        ``name``: stored with each job (default: module and function); ``aliases``: earlier names, whose jobs it
        runs too. ``timeout``: seconds for one attempt. ``limit``: starts of this task in all; ``group_limit``: starts
        in each group; ``concurrency``: runs at a time, over all workers. ``max_late``, ``when_late``, ``priority``
        and ``queue`` are defaults for its jobs. ``on_retry``: whether a job between attempts holds its group's lane
        or yields it. ``retention``: how long its finished jobs are kept. ``on_discard``: called when one is given up.
        Raises ConfigError for a value, name or signature that can't work.
        """
        options = TaskOptions(
            retry,
            timeout,
            queue,
            priority,
            limit,
            group_limit,
            concurrency,
            max_late,
            when_late,
            on_retry,
            retention,
            on_discard,
        )

        def register(function: Callable[..., Any]) -> Task[Any, Any]:
            task = make_task(function, name, aliases, options)
            for known in (task.name, *aliases):
                if known in self.tasks:
                    raise ConfigError(
                        f"Two tasks are named {known!r}: {self.tasks[known].function!r} and {function!r}. Give one "
                        "another name=."
                    )
            for known in (task.name, *aliases):
                self.tasks[known] = task
            return task

        return as_decorator(register)

    def queue(
        self,
        name: str,
        *,
        limit: Limit | None = None,
        group_limit: Limit | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Set limits for a queue: starts in all, starts in each group, runs at a time; shared by all workers."""
        self.queues[name] = Rules(limit, group_limit, concurrency)

    def cron(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        name: str | None = None,
        overlap: Overlap = "skip",
        missed: Missed = "once",
        max_missed: int = 10,
        jitter: float = 0.0,
        task: TaskDecorator | None = None,
    ) -> Callable[[Callable[[], Any]], Task[[], Any]]:
        """Run a function (or a task without arguments) on a cron schedule: 5 fields, or 6 with seconds first.

        ``overlap``: what a fire does while the one before runs: ``skip``, ``queue`` or ``allow``. ``missed``: what
        happens to fires that nobody was there for: ``skip`` them, run ``once``, or ``all``, up to ``max_missed``.
        ``jitter``: up to so many seconds later, the same in every process. Raises InvalidCron or ConfigError.
        """
        return self._recurring(Cron(expression, timezone), name, overlap, missed, max_missed, jitter, task)

    def every(
        self,
        interval: float | timedelta,
        *,
        name: str | None = None,
        overlap: Overlap = "skip",
        missed: Missed = "once",
        max_missed: int = 10,
        jitter: float = 0.0,
        task: TaskDecorator | None = None,
    ) -> Callable[[Callable[[], Any]], Task[[], Any]]:
        """Run a function each ``interval`` (seconds or timedelta, aligned to the epoch); options as for ``cron``."""
        seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
        return self._recurring(Every(seconds), name, overlap, missed, max_missed, jitter, task)

    def _recurring(
        self,
        when: Cron | Every,
        name: str | None,
        overlap: Overlap,
        missed: Missed,
        max_missed: int,
        jitter: float,
        decorator: TaskDecorator | None,
    ) -> Callable[[Callable[[], Any]], Task[[], Any]]:
        _one_of("overlap", overlap, ("skip", "queue", "allow"))
        _one_of("missed", missed, ("skip", "once", "all"))
        if max_missed < 1 or jitter < 0:
            raise ConfigError(f"max_missed ({max_missed}) is at least 1 and jitter ({jitter}) at least 0 seconds.")

        def register(function: Callable[[], Any]) -> Task[[], Any]:
            made: Any = function if isinstance(function, Task) else (decorator or self.task(name=name))(function)
            schedule = name or made.name
            if schedule in self.schedules:
                raise ConfigError(f"Two schedules are named {schedule!r}. Give one another name=.")
            self.schedules[schedule] = Schedule(schedule, when, made.call(), overlap, missed, max_missed, jitter)
            task: Task[[], Any] = made
            return task

        return register

    def provide(self, function: F) -> F:
        """Provide a resource to handlers: an (async) generator that yields it once, and cleans up after the yield.

        Its return annotation (``AsyncIterator[Client]``) names the type under which ``ctx.resource(Client)`` finds
        it. It is made when a worker starts and cleaned up when that ends. Raises ConfigError.
        """
        returns = typing.get_type_hints(function).get("return")
        made = typing.get_args(returns)
        generator = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
        if not made or not generator:
            raise ConfigError(
                f"@app.provide takes a generator annotated AsyncIterator[Type] or Iterator[Type]; {function!r} is not."
            )
        kind = typing.get_origin(made[0]) or made[0]
        if kind in self.providers:
            raise ConfigError(f"A {kind.__name__} is provided twice. Wrap one in a class of its own.")
        self.providers[kind] = function
        return function

    def on_start(self, function: F) -> F:
        """Call ``function()`` when a worker starts, after the resources are there."""
        self.start_hooks.append(function)
        return function

    def on_stop(self, function: F) -> F:
        """Call ``function()`` when a worker has ended, before the resources go."""
        self.stop_hooks.append(function)
        return function


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}.")
