"""Finding jobs: filters become conditions, and a search looks at a bounded span of ids before it answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from oncue.clock import SECOND
from oncue.errors import InvalidJob
from oncue.operate.given import PLAIN, Moment, Sought
from oncue.operate.shape import from_iso
from oncue.operate.views import StateFilter
from oncue.store.steps import as_json, overview
from oncue.store.steps.overview import Search
from oncue.task import MAX_ID

if TYPE_CHECKING:
    from oncue.store import Store

LATE = SECOND
_FINISHED = ("completed", "discarded", "cancelled")
_INDEXED = {"running": "running", "discarded": "discarded", "blocked": "blocked", "due": "due", "late": "due"}
_FEW = 10_000
_FIRST_WINDOW, _LONGEST_WINDOW = 2_000, 200_000
_WINDOW_SECONDS = 0.03
_LOADED = 500
BUDGET = 0.1
Shows = Callable[[Sequence[int]], Awaitable[Collection[int]]]
"""Tells in which of these jobs the text that is searched for is in what is shown of them."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which jobs: all that is given must match. ``text`` is searched for in arguments, metadata, key and error."""

    state: StateFilter | None = None
    task: Sought | None = None
    queue: Sought | None = None
    key: Sought | None = None
    group: Sought | None = None
    due_after: Moment | None = None
    due_before: Moment | None = None
    finished_after: Moment | None = None
    finished_before: Moment | None = None
    late: bool | None = None
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=200, extra_json_schema={"pattern": PLAIN})] | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, name) not in (None, False) for name in self.__struct_fields__)


class Found(msgspec.Struct):
    """Ids that match, the highest first, found from ``start`` to ``end``; ``more``: there are lower ids."""

    ids: list[int]
    start: int
    end: int
    more: bool


class Finder:
    """Finds the ids of jobs that match a filter, below an id, the highest first.

    Columns without an index are searched from the newest job on, in windows of ids, until enough are found or the
    budget is spent: so each call is quick however many jobs there are, and the next one goes on where it stopped.

    ``shows``: for a search in what is partly hidden. The database is then not asked for the text, so that neither what
    is found, nor where the search stops, nor how long it takes tells what is hidden, bit by bit.
    """

    def __init__(self, store: Store, filter: Filter, now: int, shows: Shows | None = None) -> None:
        self._store, self._filter, self._now, self._shows = store, filter, now, shows
        self._search: Search | None = None
        self._narrow = False

    async def find(self, before: int | None, limit: int, budget: float | None = BUDGET) -> Found:
        """Return up to ``limit`` ids below ``before`` (None: all). ``budget`` in seconds; None: to the end."""
        span = await self._store.look(overview.id_span)
        search = await self._prepare()
        if span is None or search is None:
            return Found([], 0, 0, more=False)
        first, last = span
        end = top = min(last + 1, before if before is not None else last + 1)
        found: list[int] = []
        began, width = time.monotonic(), _FIRST_WINDOW
        while top > first and len(found) < limit:
            asked, wanted = time.monotonic(), limit - len(found)
            bottom = first if self._narrow else max(first, top - width)
            ids = await self._window(search, bottom, top, wanted)
            found += ids
            top = ids[-1] if len(ids) == wanted else bottom
            took = time.monotonic() - asked
            if not ids and top > first:
                # Over what is a hole in these tables in one step; what is dense is looked at bit by bit.
                top = await self._over_hole(search, top, first)
            most = _LONGEST_WINDOW if self._shows is None else _FIRST_WINDOW
            width = min(most, round(width * min(4.0, max(0.25, _WINDOW_SECONDS / max(1e-4, took)))))
            if budget is not None and time.monotonic() - began > budget:
                break
        return Found(found, top, end - 1, more=top > first)

    async def _window(self, search: Search, bottom: int, top: int, wanted: int) -> list[int]:
        if self._shows is None:
            return await self._store.look(partial(overview.matching_ids, search, bottom, top, wanted))
        ids = await self._store.look(partial(overview.matching_ids, search, bottom, top, top - bottom))
        shown: list[int] = []
        for first in range(0, len(ids), _LOADED):
            part = ids[first : first + _LOADED]
            seen = await self._shows(part)
            shown += [id for id in part if id in seen]
            if len(shown) >= wanted:
                break
        return shown[:wanted]

    async def _over_hole(self, search: Search, top: int, first: int) -> int:
        highest = await self._store.look(partial(overview.next_below, search, top))
        return first if highest is None else highest + 1

    async def _prepare(self) -> Search | None:
        if self._search is None:
            search = _search_of(self._filter, self._now, in_text=self._shows is None)
            if search is not None and (ids := await self._few()) is not None:
                search, self._narrow = _among(search, ids), True
            self._search = search
        return self._search

    async def _few(self) -> list[int] | None:
        """Return the ids among which all that match are, where an index finds them and they are few."""
        kind = "late" if self._filter.late else self._filter.state or ""
        if self._filter.key is not None:
            steps = partial(overview.few_of_key, self._filter.key, _FEW + 1)
        elif kind in _INDEXED:
            until = self._now - LATE if kind == "late" else self._now
            steps = partial(overview.few, _INDEXED[kind], _FEW + 1, until)
        else:
            return None
        ids = await self._store.look(steps)
        return ids if len(ids) <= _FEW else None


def _among(search: Search, ids: list[int]) -> Search:
    waiting = None if search.waiting is None else ["one_of", *search.waiting]
    finished = None if search.finished is None else ["one_of", *search.finished]
    return Search(waiting, finished, {**search.values, "one_of": as_json(ids)})


def _search_of(filter: Filter, now: int, *, in_text: bool) -> Search | None:
    """Return a filter's conditions, that on the text with ``in_text`` only; None where nothing can match.

    Raises InvalidTime, or InvalidJob.
    """
    values: dict[str, Any] = {}
    both: list[str] = []
    for name in ("task", "queue", "key", "group"):
        if (value := getattr(filter, name)) is not None:
            if "\0" in value:
                raise InvalidJob(f"{name} can't hold a NUL character.")
            values[name] = value
            both.append(name)
    for name in ("due_after", "due_before", "finished_after", "finished_before"):
        if (moment := getattr(filter, name)) is not None:
            values[name] = from_iso(moment, clamp=True)
    both += [name for name in ("due_after", "due_before") if name in values]
    waiting: list[str] | None = list(both)
    finished: list[str] | None = both + [name for name in ("finished_after", "finished_before") if name in values]
    if len(finished or ()) > len(both):
        waiting = None
    waiting, finished = _by_state(filter, now, waiting, finished, values)
    if filter.text is not None and "\0" in filter.text:
        raise InvalidJob("text can't hold a NUL character.")
    if filter.text is not None and in_text:
        values["text"] = _like(filter.text)
        # Quotes, backslashes and line ends are escaped in JSON.
        values["json"] = _like(msgspec.json.encode(filter.text).decode()[1:-1])
        waiting = None if waiting is None else [*waiting, "in_args"]
        finished = None if finished is None else [*finished, "in_finished"]
    return None if waiting is None and finished is None else Search(waiting, finished, values)


def _by_state(
    filter: Filter, now: int, waiting: list[str] | None, finished: list[str] | None, values: dict[str, Any]
) -> tuple[list[str] | None, list[str] | None]:
    state = filter.state
    if filter.late and state not in ("late", None, "scheduled", "due", "blocked"):
        return None, None
    if filter.late or state == "late":
        values["late"] = now - LATE
        waiting, finished = None if waiting is None else [*waiting, "late"], None
    if state in _FINISHED:
        values["state"] = as_json([state])
        return None, None if finished is None else [*finished, "state"]
    if state in ("scheduled", "running"):
        values["state"] = as_json([state])
        return None if waiting is None else [*waiting, "state"], None
    if state in ("due", "blocked"):
        if state == "due":
            values["due"] = now
        return None if waiting is None else [*waiting, state], None
    return waiting, finished


def _like(text: str) -> str:
    for sign in ("\\", "%", "_"):
        text = text.replace(sign, "\\" + sign)
    return f"%{text}%"


def cursor_of(text: str | None) -> int | None:
    """Return the id below which a page goes on. Raises InvalidJob for what is no cursor."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_ID:
        raise InvalidJob(f"{text[:50]!r} is no cursor: take the `next` of the page before.")
    return int(text)
