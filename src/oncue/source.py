"""Sources: the user's own tables, or functions of theirs, which the sweeper reconciles with jobs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from oncue.bindings import Arguments, RowArguments, Template
from oncue.clock import from_us, to_us
from oncue.errors import ConfigError, InvalidArguments, InvalidJob, InvalidTime
from oncue.job import Claimed, NewJob
from oncue.runner import Guard
from oncue.scheduling import Scheduled, new_job
from oncue.store.due import DueFormat
from oncue.store.sources import (
    Applied,
    Offer,
    Row,
    RowKey,
    SourceBroken,
    SourceKeeper,
    SourceStatus,
    Table,
    reference,
    row_of,
)
from oncue.task import Call, Task
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

log = logging.getLogger("oncue.source")
_BATCH = 500
_WEEK = 7 * 86_400 * 1_000_000
_EXAMPLES = 5


class DueItem(NamedTuple):
    """What a function declared with ``@app.source_items`` yields: the job ``key`` is due at ``due``, an aware datetime.

    ``call`` may be left out where the declaration names a task: that is then called with the key.
    """

    key: str
    due: datetime
    call: Call[Any] | None = None
    group: str | None = None


ListItems = Callable[..., AsyncIterator[DueItem | tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table whose rows become jobs: see ``OnCue.source``."""

    name: str
    table: Table
    key: Template
    group: Template | None
    arguments: Arguments
    queue: str | None
    priority: int | None
    trigger: bool

    def scheduled(self, row: Row) -> Scheduled:
        """Return what the row asks for. Raises InvalidArguments, InvalidJob or what the user's own function does."""
        assert row.due is not None
        return Scheduled(
            self.arguments.call(row.key, row.values),
            at=from_us(row.due),
            key=self.key.render(row.values),
            group=None if self.group is None else self.group.render(row.values),
            queue=self.queue,
            priority=self.priority,
        )


@dataclass(frozen=True, slots=True)
class ItemSource:
    """A function that lists what is due: see ``OnCue.source_items``."""

    name: str
    function: ListItems
    arguments: Arguments | None
    queue: str | None
    priority: int | None

    def listing(self, until: datetime) -> AsyncIterator[Any]:
        """Begin to list; a function that takes a parameter is told until when."""
        return self.function(until) if inspect.signature(self.function).parameters else self.function()

    def scheduled(self, given: Any) -> Scheduled:
        """Return what an item asks for. Raises InvalidArguments, InvalidJob or InvalidTime."""
        if not isinstance(given, tuple) or not 2 <= len(given) <= 4:
            raise InvalidJob(f"a source lists DueItem(key, due, call, group), not {given!r}")
        item = DueItem(*given)
        call = item.call
        if call is None and self.arguments is not None:
            call = self.arguments.call(item.key, {"key": item.key})
        if call is None:
            raise InvalidJob(f"item {item.key!r} has no call, and its source names no task")
        return Scheduled(call, at=item.due, key=item.key, group=item.group, queue=self.queue, priority=self.priority)


Source = TableSource | ItemSource


def table_source(
    name: str,
    table: str,
    id: str,
    due: str,
    where: str | None,
    format: DueFormat,
    key: str,
    group: str | None,
    task: Task[Any, Any],
    args: RowArguments | None,
    queue: str | None,
    priority: int | None,
    trigger: bool,
) -> TableSource:
    """Check a declaration and return it. Raises ConfigError."""
    _check_name("name", name)
    for what, value in (("table", table), ("id", id), ("due", due)):
        _check_name(what, value)
    if format not in get_args(DueFormat):
        raise ConfigError(f"due_format is one of {', '.join(map(repr, get_args(DueFormat)))}, not {format!r}.")
    if where is not None and not where.strip():
        raise ConfigError("where='' is empty: leave it out, or write a condition such as \"status = 'active'\".")
    templates = [Template.parse(key, "key")] + ([Template.parse(group, "group")] if group is not None else [])
    if not templates[0].columns:
        raise ConfigError(f"key={key!r} is the same for every row. Put the id in it: 'question-{{id}}'.")
    arguments = Arguments.parse(task, args)
    columns = None
    if arguments.columns is not None:
        wanted = [column for template in templates for column in template.columns]
        columns = tuple(dict.fromkeys([*wanted, *arguments.columns]))
    where_is = Table(name, table, id, due, where, format, columns)
    return TableSource(name, where_is, templates[0], [*templates, None][1], arguments, queue, priority, trigger)


def item_source(
    name: str | None, function: ListItems, task: Task[Any, Any] | None, queue: str | None, priority: int | None
) -> ItemSource:
    """Check a declaration and return it. Raises ConfigError."""
    if not inspect.isasyncgenfunction(function):
        raise ConfigError(f"@app.source_items takes an async function that yields items; {function!r} is not.")
    if len(inspect.signature(function).parameters) > 1:
        raise ConfigError(f"{function!r} takes no parameter, or one: the time until which it must list.")
    name = name or function.__name__
    _check_name("name", name)
    return ItemSource(name, function, None if task is None else Arguments.parse(task, None), queue, priority)


def _check_name(what: str, value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise ConfigError(f"{what}={value!r}: a name of 1 to 200 printable characters is needed.")
    if what == "table" and value.lower().startswith(("oncue_", "sqlite_")):
        raise ConfigError(f"table={value!r} is no table of yours.")


class Sources:
    """The declared sources of an application, and their reconciliation with jobs."""

    def __init__(self, app: OnCue) -> None:
        self._app = app
        self._troubles: dict[str, str] = {}

    @property
    def _keeper(self) -> SourceKeeper:
        return self._app.store.source_keeper()

    @property
    def _declared(self) -> Mapping[str, Source]:
        return self._app.declared_sources

    def guards(self) -> Mapping[str, Guard]:
        """Return, by origin, what tells at the claim why a source's job need not run any more."""
        tables = [source for source in self._declared.values() if isinstance(source, TableSource)]
        return {f"source:{source.name}": partial(self._guard, source) for source in tables}

    async def _guard(self, source: TableSource, job: Claimed) -> str | None:
        reason, moved = await self._keeper.guard(source.table, job)
        if moved and (row := await self._keeper.rows(source.table, [row_of(job)[0]])):
            done = await self._apply_rows(source, row, [])
            self._hint(done)
        return reason

    async def status(self) -> list[SourceStatus]:
        """Return how the last sweep of each source went."""
        return await self._keeper.status()

    async def install(self) -> None:
        """Check every table, and install the triggers that were asked for; drop those no longer wanted.

        A table that does not exist yet is only warned of: the next sweep tries again. Raises ConfigError for a
        column that does not exist or a condition that SQLite refuses, with what there is instead.
        """
        ready: list[TableSource] = []
        for source in self._declared.values():
            if not isinstance(source, TableSource):
                continue
            try:
                if not await self._keeper.exists(source.table.table):
                    await self._keeper.check(source.table)
            except SourceBroken as error:
                log.warning("%s It is looked for again at each sweep.", error)
                continue
            try:
                await self._keeper.check(source.table)
            except SourceBroken as error:
                raise ConfigError(str(error)) from error
            ready.append(source)
        try:
            await self._install_triggers(ready)
        except SourceBroken as error:
            raise ConfigError(str(error)) from error

    async def _install_triggers(self, ready: Iterable[TableSource]) -> None:
        wanted = [source.table for source in ready if source.trigger]
        for line in await self._keeper.install(self._app.name, list(self._declared), wanted):
            log.info("%s", line)

    async def reconcile(self) -> int:
        """Reconcile every source; return how many jobs were made or moved."""
        total = 0
        for source in self._declared.values():
            if isinstance(source, TableSource):
                total += await self._sweep_table(source)
            else:
                total += await self._sweep_items(source)
        return total

    async def reconcile_changed(self) -> int:
        """Reconcile the rows that a trigger saw change; return how many jobs were made or moved."""
        total = 0
        for name, keys in (await self._keeper.changes()).items():
            source = self._declared.get(name)
            if not isinstance(source, TableSource):
                continue
            try:
                done = await self._apply_keys(source, keys)
            except SourceBroken as error:
                # The next sweep looks at all rows anyway; until then the notes would only be tried again and again.
                self._trouble(source.name, str(error))
                await self._keeper.drop_changes(name)
                continue
            self._hint(done)
            total += done.made + done.moved
        return total

    def _hint(self, done: Applied) -> None:
        if done.earliest is not None:
            self._app.wake.hint(done.earliest)

    def _horizon(self) -> int:
        return self._app.clock.now() + 2 * self._app.sweep_us

    async def _sweep_table(self, source: TableSource) -> int:
        done, problems, unreadable, broken = Applied(), list[str](), 0, False
        try:
            await self._renew_triggers(source)
            await self._keeper.drop_changes(source.name)
            more = True
            while more:
                before = done.made + done.moved + done.cancelled
                found = await self._keeper.find(source.table, self._horizon())
                problems, unreadable = found.examples, found.unreadable
                for start in range(0, len(found.rows), _BATCH):
                    done.add(await self._apply_rows(source, found.rows[start : start + _BATCH], problems))
                more = found.more and done.made + done.moved + done.cancelled > before
        except SourceBroken as error:
            problems, broken = [str(error).removeprefix(f"source {source.name}: ")], True
        await self._record(source, done, problems, unreadable, broken=broken)
        return done.made + done.moved

    async def _renew_triggers(self, source: TableSource) -> None:
        """The table may have been made, or made again, since the service began."""
        if source.trigger:
            ready = [one for one in self._declared.values() if isinstance(one, TableSource)]
            there = [one for one in ready if await self._keeper.exists(one.table.table)]
            await self._keeper.check(source.table)
            await self._install_triggers(there)

    async def _apply_keys(self, source: TableSource, keys: list[RowKey]) -> Applied:
        done = Applied()
        for start in range(0, len(keys), _BATCH):
            rows = await self._keeper.rows(source.table, keys[start : start + _BATCH])
            done.add(await self._apply_rows(source, rows, []))
        return done

    async def _apply_rows(self, source: TableSource, rows: list[Row], problems: list[str]) -> Applied:
        horizon, offers = self._horizon(), []
        for row in rows:
            job: NewJob | None = None
            reason = row.reason
            if row.due is not None:
                try:
                    job = self._job(source, source.scheduled(row), row.key)
                except Exception as error:
                    # The user's own function, or a value that fits no key: this row's trouble, and no other's.
                    reason = f"row {row.key!r}: no job can be made of it: {error}"
                    problems.append(reason)
            far = row.due is not None and row.due > horizon
            offers.append(Offer(row.key, job, reason, row.raw, source.table.format, far, row.seen))
        return await self._apply(source, source.table, offers, 0)

    def _job(self, source: Source, wanted: Scheduled, key: RowKey) -> NewJob:
        job = new_job(wanted, self._app.clock.now())
        job.origin, job.origin_ref = f"source:{source.name}", reference(key, job.scheduled_at)
        return job

    async def _apply(self, source: Source, table: Table | None, offers: list[Offer], listed: int) -> Applied:
        now = self._app.clock.now()
        expires = None if self._app.retention_us is None else now + self._app.retention_us
        done = await self._keeper.apply(source.name, table, offers, now, expires, listed)
        for key in done.deferred:
            log.warning(
                "source %s: row %r waits: another row's job waits under the same key. A key that holds the row's id "
                "would tell them apart.",
                source.name,
                key,
            )
        return done

    async def _sweep_items(self, source: ItemSource) -> int:
        """List everything that is due within the horizon; what waits and was not listed is not wanted any more."""
        listed, horizon = self._app.clock.now(), self._horizon()
        offers: dict[RowKey, Offer] = {}
        problems: list[str] = []
        try:
            waiting = await self._keeper.live_keys(source.name, listed)
            async for given in source.listing(from_us(horizon)):
                try:
                    wanted = source.scheduled(given)
                    job = self._job(source, wanted, given[0])
                    due = to_us(given[1])
                except (InvalidArguments, InvalidJob, InvalidTime, AttributeError, TypeError) as error:
                    problems.append(f"item {given!r}: {error}")
                    continue
                offers[given[0]] = Offer(given[0], job, None, due, far=due > horizon)
        except Exception as error:
            log.exception("source %s: its function failed; what it had listed until then is kept out", source.name)
            await self._record(source, Applied(), [f"its function failed: {error!r}"], 0, broken=True)
            return 0
        gone = "it was not listed any more"
        # An item that could not be read is left as it was: that it is listed is certain.
        if not problems:
            offers |= {key: Offer(key, None, gone) for key in waiting if key not in offers}
        done = await self._apply(source, None, list(offers.values()), listed)
        await self._record(source, done, problems, len(problems), broken=False, listed=list(offers))
        return done.made + done.moved

    async def _record(
        self,
        source: Source,
        done: Applied,
        problems: list[str],
        unreadable: int,
        *,
        broken: bool,
        listed: list[RowKey] | None = None,
    ) -> None:
        now = self._app.clock.now()
        drift: dict[str, Any] | None = None
        if problems or done.deferred:
            drift = {"problems": problems[:_EXAMPLES], "count": len(problems), "unreadable": unreadable}
            drift["waiting_for_key"] = done.deferred[:_EXAMPLES]
        self._trouble(source.name, "; ".join(problems[:_EXAMPLES]), unreadable)
        status = SourceStatus(
            source.name, self._app.name, now, done.made, done.moved, done.cancelled, unreadable, drift
        )
        table = source.table if isinstance(source, TableSource) else None
        before = None if broken or self._app.retention_us is None else now - max(self._app.retention_us, _WEEK)
        try:
            await self._keeper.save(status, before, table, listed or [])
        except SourceBroken as error:
            self._trouble(source.name, str(error))

    def _trouble(self, name: str, text: str, unreadable: int = 0) -> None:
        """Log a source's trouble when it begins or changes, not at every sweep."""
        text = text.removeprefix(f"source {name}: ")
        if text and self._troubles.get(name) != text:
            rows = f"{counted(unreadable, 'row')} can't be read: " if unreadable else ""
            log.error("source %s: %s%s", name, rows, text)
        elif not text and self._troubles.get(name):
            log.info("source %s is well again", name)
        self._troubles[name] = text
