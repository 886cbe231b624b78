"""Declaring: tasks, schedules, sources, resources. The part of OnCue that runs at import time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from oncue.errors import ConfigError
from oncue.job import OnRetry, WhenLate
from oncue.limits import Limit, Policy, Rules
from oncue.retry import Retry
from oncue.task import (
    DiscardHook,
    Missed,
    Overlap,
    Task,
    TaskDecorator,
    TaskOptions,
    as_decorator,
    make_task,
    provided_type,
)

if TYPE_CHECKING:
    from oncue.bindings import RowArguments
    from oncue.bridge.adopt import Adoptions, Choose
    from oncue.bridge.handoff import NodeQueues, Target
    from oncue.conversation.channels import Channel
    from oncue.conversation.declare import Conversation, Keyword, Talk
    from oncue.cron import Cron, Every
    from oncue.planner import Schedule
    from oncue.source import ListItems, Source
    from oncue.store.due import DueFormat
    from oncue.transport import Transport

F = TypeVar("F", bound=Callable[[], Any])
L = TypeVar("L", bound="ListItems")
Provider = Callable[[], AsyncIterator[Any] | Iterator[Any]]


class Declarations:
    """What an application declares. ``OnCue`` is this with a store."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.schedules: dict[str, Schedule] = {}
        self.declared_sources: dict[str, Source] = {}
        self.queues: dict[str, Rules] = {}
        self.providers: dict[type, Provider] = {}
        self.wake_url: str | None = None
        self.adoptions: dict[str, Adoptions] = {}
        self.node_targets: list[Target] = []
        self.channels: dict[str, Channel] = {}
        self.conversations: dict[str, Conversation] = {}
        self.stand_ins: dict[str, Callable[..., Any]] | None = None
        """Under ``oncue.testing``: what runs in Node's place, by the task's name."""
        self.start_hooks: list[Callable[[], Awaitable[None] | None]] = []
        self.stop_hooks: list[Callable[[], Awaitable[None] | None]] = []

    @property
    def policy(self) -> Policy:
        """All limits, as a claim must respect them."""
        tasks = {name: task.options.rules for name, task in self.tasks.items() if task.options.rules}
        return Policy(tasks, {name: rules for name, rules in self.queues.items() if rules})

    def task(
        self,
        bare: None = None,
        /,
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
        if bare is not None:
            raise ConfigError("Write @app.task() with parentheses; its options go between them.")
        options = TaskOptions(
            retry, timeout, queue, priority, limit, group_limit, concurrency, max_late, when_late, on_retry, retention,
            on_discard,
        )  # fmt: skip

        return as_decorator(lambda function: self.add_task(make_task(function, name, aliases, options)))

    def add_task(self, task: Task[Any, Any]) -> Task[Any, Any]:
        """Register a task that is made already. Raises ConfigError where another has its name."""
        for known in (task.name, *task.aliases):
            if known in self.tasks:
                raise ConfigError(
                    f"Two tasks are named {known!r}: {self.tasks[known].function!r} and {task.function!r}. Give one "
                    "another name=."
                )
        for known in (task.name, *task.aliases):
            self.tasks[known] = task
        return task

    def node_task(
        self,
        queue: str,
        *,
        redis: str | None = None,
        prefix: str | None = None,
        job_name: str | None = None,
        name: str | None = None,
        aliases: tuple[str, ...] = (),
        retry: Retry = Retry(),  # noqa: B008 - frozen
        timeout: float | None = None,
        row_queue: str = "default",
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
        """Register an async signature as a task that a Node worker runs on a BullMQ queue; its body never runs.

        Schedule it as any task. When it is due, a worker that claims it (from OnCue's own ``row_queue``) adds a job to
        the BullMQ queue ``queue`` and waits for its end: the arguments, by name, are the job's data, ``job_name`` (by
        default the function's name) its name. Its result, checked against the return type, its progress and its
        failure (NodeError, with Node's stack) come into the row, and the row's ``retry`` decides; an
        ``UnrecoverableError`` discards it. ``timeout`` counts from the claim, so the time in BullMQ's queue too.

        ``redis``: the server's URL (default: that of ``wake``, else the environment's ``REDIS_URL``). ``prefix``: the
        first part of BullMQ's keys (default: the URL's ``?prefix=``, else ``bull``). The others as for ``task``.
        Raises ConfigError for what can't work; where no Redis or no driver of it is found, when a worker starts.
        """
        from oncue.bridge.handoff import NodeQueues, make_node_task, target_of

        options = TaskOptions(
            retry, timeout, row_queue, priority, limit, group_limit, concurrency, max_late, when_late, on_retry,
            retention, on_discard,
        )  # fmt: skip

        def register(function: Callable[..., Any]) -> Task[Any, Any]:
            target = target_of(queue, redis, prefix, job_name or function.__name__)
            made = make_task(function, name, aliases, options)
            task = self.add_task(make_node_task(made, target, lambda: self.stand_ins))
            self.node_targets.append(target)
            self.providers.setdefault(NodeQueues, self._node_queues)
            return task

        return as_decorator(register)

    def adopt(self, queue: str, *, redis: str | None = None, prefix: str | None = None) -> Callable[[Choose], Choose]:
        """Take over the jobs that Node adds to a BullMQ queue: a function of a ``NodeJob`` says what each becomes.

        It returns a call (``send.call(job.data["trialId"])``), a ``Scheduled`` for other options, or None, which
        leaves the job to Node. It is called when the job is *added*, in the event loop: so it is quick, without
        ``async``, and may be called more than once for a job. What it returns is stored, unique by the queue, the
        job's id and its timestamp; then the job is taken out of BullMQ, and its id is free for the next one.

        Unless a ``Scheduled`` says otherwise the job is due at BullMQ's ``timestamp`` + ``delay``, tried as often as
        ``attempts`` says (else by the task's own retry policy), and BullMQ's priorities 1 to 100 are OnCue's, those
        beyond are 100; a job without one has its task's. A ``delay`` in a ``Scheduled`` counts from the adoption.

        Jobs that a Node worker has begun, flows, job schedulers and jobs with deduplication stay with Node; so does
        one for which the function raises or returns what is refused. Each is logged once, and none is lost.

        ``redis``: the server's URL (default: that of ``wake``, else the environment's ``REDIS_URL``). ``prefix``: the
        first part of BullMQ's keys (default: the URL's ``?prefix=``, else ``bull``). Raises ConfigError for what can't
        work; where no Redis is known, or its drivers aren't installed, when a worker starts.
        """
        from oncue.bridge.adopt import adoption_of

        def register(function: Choose) -> Choose:
            made = adoption_of(queue, redis, prefix, function)
            name = f"{prefix}:{queue} {redis}"
            if name in self.adoptions:
                raise ConfigError(
                    f"The BullMQ queue {queue!r} is adopted twice. Let one function choose for all its jobs."
                )
            self.adoptions[name] = made
            return function

        return register

    def _node_queues(self) -> AsyncIterator[NodeQueues]:
        from oncue.bridge.handoff import node_queues

        return node_queues(self.wake_url, self.node_targets if self.stand_ins is None else ())

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
        from oncue.cron import Cron

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
        from oncue.cron import Every

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
        from oncue.planner import Schedule, check_schedule

        check_schedule(overlap, missed, max_missed, jitter)

        def register(function: Callable[[], Any]) -> Task[[], Any]:
            made: Any = function if isinstance(function, Task) else (decorator or self.task(name=name))(function)
            schedule = name or made.name
            if schedule in self.schedules:
                raise ConfigError(f"Two schedules are named {schedule!r}. Give one another name=.")
            self.schedules[schedule] = Schedule(schedule, when, made.call(), overlap, missed, max_missed, jitter)
            task: Task[[], Any] = made
            return task

        return register

    def source(
        self,
        table: str,
        *,
        key: str,
        due: str,
        task: Task[Any, Any],
        where: str | None = None,
        args: RowArguments | None = None,
        id: str = "id",
        group: str | None = None,
        due_format: DueFormat = "auto",
        trigger: bool = False,
        queue: str | None = None,
        priority: int | None = None,
        name: str | None = None,
    ) -> None:
        """Make jobs of the rows of a table of yours, which lives in the same database file as OnCue's.

        Each row that matches ``where`` and has a time in its column ``due`` becomes one job, made by the sweep that
        comes before it is due, moved when the time moves, cancelled when the row goes or matches no more; and the row
        is read again when the job starts. A row whose time stands where it stood is not run again: set it to another
        time, or to NULL, when the work is done (and as its last step, for a retry finds the row as it is then).
        A job that you have scheduled yourself under the same key for the same time (within 0.1 s, or as exactly as
        the column is written) is taken for the row's; such a job is not read again when it starts.

        ``key`` and ``group`` are templates over the row's columns: ``"question-{id}"``. Rows of one key run one after
        the other. ``args``: how the task is called: a mapping of parameters to templates or values, one template, or
        a quick function that is given the row (a dict) and returns a call; by default the task's one parameter is
        the row's id. ``id``: a unique column of whole numbers or texts.
        ``due_format``: ``iso`` (text; without a zone it is UTC, as SQLite's ``datetime('now')`` writes it),
        ``seconds``, ``milliseconds``, ``microseconds``, or ``auto``, which tells these apart by type and size.
        An index on the due column is used, also a partial one whose condition ``where`` repeats. Values that can't be
        read are logged and shown by ``oncue doctor``; they disturb no other row.
        ``where`` is SQL of your own, put into statements as it stands: never build it from a user's input.
        ``trigger=True`` installs triggers on the table, so that a change by any program is picked up at once instead
        of at the next sweep; they go when the declaration goes. ``queue`` and ``priority`` default to the task's.

        Raises ConfigError, for a column that does not exist when a worker starts.
        """
        from oncue.source import table_source

        self._add_source(
            table_source(
                name or table, table, id, due, where, due_format, key, group, task, args, queue, priority, trigger
            )
        )

    def source_items(
        self,
        *,
        task: Task[Any, Any] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        name: str | None = None,
    ) -> Callable[[L], L]:
        """Make jobs of what an async generator lists: ``yield DueItem(key, due, call, group)``, from anywhere.

        Each sweep calls it, with the time (aware, UTC) until which it must list everything due, where it takes a
        parameter. What waits and is not listed any more is cancelled; a key with another time is moved; a key with
        the time that was run is not run again. An item without a call has ``task`` called with its key.
        Where the function raises, nothing changes until the next sweep. Raises ConfigError.
        """

        def register(function: L) -> L:
            from oncue.source import item_source

            self._add_source(item_source(name, function, task, queue, priority))
            return function

        return register

    def _add_source(self, source: Source) -> None:
        if source.name in self.declared_sources:
            raise ConfigError(f"Two sources are named {source.name!r}. Give one another name=.")
        self.declared_sources[source.name] = source

    def channel(self, transport: Transport, **options: Any) -> Channel:
        """Set options of a transport's channel, before its conversations; ``ChannelOptions`` says which there are.

        Raises ConfigError for what can't work, or where the channel is there already.
        """
        from oncue.conversation.channels import make_channel

        return make_channel(self, transport, options)

    def conversation(self, name: str, *, channel: Transport | Channel, start: Keyword | None = None) -> Talk:
        """Register an async function of a ``Chat`` as a conversation: it is run anew from its record each time.

        ``start``: what a person writes to start it; else ``await conversation.start(address)``.
        Raises ConfigError.
        """
        from oncue.conversation.declare import register

        return register(self, name, channel, start)

    def provide(self, function: F) -> F:
        """Provide a resource to handlers: an (async) generator that yields it once, and cleans up after the yield.

        Its return annotation (``AsyncIterator[Client]``) names the type under which ``ctx.resource(Client)`` finds
        it. It is made when a worker starts and cleaned up when that ends. Raises ConfigError.
        """
        kind = provided_type(function)
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
