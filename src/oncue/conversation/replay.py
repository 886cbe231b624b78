"""Running a conversation's function against its record: recorded steps return at once, the first other suspends it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from oncue.clock import from_us
from oncue.conversation.post import Fit, Heard, Plan, Post, Question
from oncue.errors import ConfigError
from oncue.store.chats import StepRow
from oncue.store.steps.chats import Loaded
from oncue.task import checked_name
from oncue.transport import Transport

if TYPE_CHECKING:
    from oncue.conversation.chat import Chat

LONGEST = 30.0
"""Seconds that one run of a conversation's function may take."""

_MEND = "Deploy a function that fits the record, then resume it; or restart it from the beginning."


class Suspend(BaseException):
    """Ends a run where it can't go on yet. A conversation's function lets it pass."""


@dataclass(frozen=True, slots=True)
class Open:
    """A new step sends its message. ``row``: as it is to be stored, but for the message."""

    row: StepRow
    post: Post


@dataclass(frozen=True, slots=True)
class Sleep:
    """A new step waits until then (microseconds)."""

    row: StepRow
    until: int


@dataclass(frozen=True, slots=True)
class Pause:
    """What was found out so far is stored first; then the function goes on, with work to do."""


@dataclass(frozen=True, slots=True)
class Did:
    """A step's work is done."""

    row: StepRow


@dataclass(frozen=True, slots=True)
class Misfit:
    """What the person wrote is no answer. ``text``: what they are told; None: the question again."""

    question: Question
    text: str | None


@dataclass(frozen=True, slots=True)
class Settling:
    """More of the answer may come. Microseconds, at most so many after the first part."""

    wait: int
    most: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step that is open stays so. ``post``: what it sent, where it did."""

    post: Post | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The function returned."""


@dataclass(frozen=True, slots=True)
class Park:
    """It can't go on before a person has put something right."""

    reason: str
    error: str | None = None


Outcome = Open | Sleep | Pause | Did | Misfit | Settling | Waiting | Ended | Park


@dataclass(slots=True)
class Run:
    """One run. ``heard``: what was written at the open step; ``works``: whether ``do`` may do its work in this run."""

    loaded: Loaded
    transport: Transport
    now: int
    heard: Heard | None = None
    works: bool = False
    done: list[StepRow] = field(default_factory=list)
    """The steps that this run completed, to be stored."""
    outcome: Outcome | None = None
    _steps: dict[str, StepRow] = field(default_factory=dict)
    _reached: set[str] = field(default_factory=set)
    _made: dict[str, tuple[Coroutine[Any, Any, Any], ...]] = field(default_factory=dict)
    _open: StepRow | None = None

    def __post_init__(self) -> None:
        self._steps = {step.name: step for step in self.loaded.steps}
        self._open = self.loaded.open

    async def run(self, function: Callable[[Chat], Awaitable[Any]], chat: Chat) -> Outcome:
        """Run the function; return what comes next. Raises what the function raises, and TimeoutError."""
        swallowed = (
            "The function went on after a step had suspended it: write `except Exception`, not `except:` or "
            "`except BaseException`."
        )
        limit = asyncio.timeout(LONGEST)
        try:
            async with limit:
                await function(chat)
            if self.outcome is None:
                return self._end()
            return Park(swallowed)
        except Suspend:
            assert self.outcome is not None
            return self.outcome
        except Exception as error:
            if self.outcome is not None:
                return Park(swallowed, repr(error))
            if limit.expired():
                raise TimeoutError(f"The function took more than {LONGEST:g} s: longer work is for a task.") from error
            raise
        finally:
            for made in self._made.values():
                for coroutine in made:
                    coroutine.close()

    def _end(self) -> Outcome:
        if self._made:
            return Park(_not_awaited(self._made))
        if self._open is not None:
            return Park(f"The function ends, but it waits at {self._open.name!r}, {_since(self._open)}. {_MEND}")
        return Ended()

    def make(self, name: str, step: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Note that a step was called; it has to be awaited before the next. Raises ConfigError for a bad name."""
        try:
            checked_name("a step's name", name)
        except Exception:
            step.close()
            raise
        waits = self._awaited(name, step)
        if name in self._reached or name in self._made:
            step.close()
            waits.close()
            raise ConfigError(f"Two steps are named {name!r}. Give each a name of its own, in loops by the counter.")
        self._made[name] = (waits, step)
        return waits

    async def _awaited(self, name: str, step: Coroutine[Any, Any, Any]) -> Any:
        del self._made[name]
        self._reached.add(name)
        try:
            if self.outcome is not None:
                raise Suspend
            if self._made:
                self._stop(Park(_not_awaited(self._made)))
            return await step
        finally:
            step.close()

    @property
    def anchor(self) -> StepRow | None:
        """The step from whose end the next delay counts: the last answer, message or sleep; None: the start."""
        ends = [row for row in self._steps.values() if row.state == "done" and row.kind != "do"]
        return max(ends, key=lambda row: (row.done_at or 0, row.nth), default=None)

    def _stop(self, outcome: Outcome) -> NoReturn:
        self.outcome = outcome
        raise Suspend

    async def ask(self, name: str, question: Question) -> Any:
        """Return the answer to a question, or suspend."""
        row = self._known(name, "ask", question.shape)
        if row is None:
            question.post.check(self.transport)
            self._stop(Open(self._new(name, "ask", question.shape, question.post), question.post))
        if row.state == "open":
            row = await self._answer(row, question)
        value = _value(row)
        if question.options and question.check is None and value not in {one.id for one in question.options}:
            self._stop(Park(f"The answer to {name!r} is none of its choices any more. {_MEND}"))
        return value

    async def _answer(self, row: StepRow, question: Question) -> StepRow:
        heard = self.heard
        if heard is None:
            self._stop(Waiting(question.post))
        if question.settle and not heard.settled and heard.tapped is None:
            self._stop(Settling(question.settle, question.settle_most))
        judged = await question.judge(heard)
        if not isinstance(judged, Fit):
            self._stop(Misfit(question, judged.text))
        return self._complete(row, judged.value, heard.at)

    async def say(self, name: str, post: Post) -> None:
        """Return once a message was sent, or suspend."""
        row = self._known(name, "say", "")
        if row is None:
            post.check(self.transport)
            self._stop(Open(self._new(name, "say", "", post), post))
        if row.state == "done":
            return
        message = self.loaded.message
        told = message is not None and message.state in ("accepted", "unknown") and not message.given_up
        if message is not None and told and message.settled_at is not None:
            self._complete(row, None, message.settled_at)
            return
        self._stop(Waiting(post))

    async def sleep(self, name: str, delay: int | None, moment: int) -> None:
        """Return once the time has come, or suspend. ``delay`` or else ``moment`` in microseconds."""
        row = self._known(name, "sleep", "")
        if row is None:
            wanted = moment if delay is None else self.now + delay
            self._stop(Sleep(self._new(name, "sleep", ""), wanted))
        if row.state == "done":
            return
        wakes = msgspec.json.decode(row.value or "{}", type=Plan).until or 0
        if wakes > self.now:
            self._stop(Waiting())
        self._complete(row, None, wakes)

    async def do(self, name: str, function: Callable[[], Any]) -> Any:
        """Return a function's recorded result, or call it and suspend, so that its result is stored before all else."""
        row = self._known(name, "do", "")
        if row is None:
            if self.done or not self.works:
                self._stop(Pause())
            result = function()
            result = await result if inspect.isawaitable(result) else result
            made = self._new(name, "do", "")
            self._stop(Did(self._completed(made, result, self.now)))
        return _value(row)

    def _known(self, name: str, kind: str, shape: str) -> StepRow | None:
        """Return a step's record; None for a new one. Suspends where the record is of something else."""
        row = self._steps.get(name)
        if row is None:
            if self._open is not None:
                waits = f"it waits at {self._open.name!r}, {_since(self._open)}"
                self._stop(Park(f"The function comes to {name!r} now, but {waits}. {_MEND}"))
            return None
        if row.kind != kind:
            was = f"The step {name!r} was recorded as {row.kind!r}; the function has it as {kind!r} now."
            self._stop(Park(f"{was} {_MEND}"))
        if row.shape != shape and row.state == "done":
            self._stop(Park(f"The answer to {name!r} was a {row.shape}; the function asks for a {shape} now. {_MEND}"))
        if row.state == "open":
            # A question without an answer may change its shape.
            row.shape = shape
        return row

    def _new(self, name: str, kind: Any, shape: str, post: Post | None = None) -> StepRow:
        plan = Plan() if post is None else Plan(remind=post.nudges())
        nth = len(self._steps) + 1
        text = msgspec.json.encode(plan).decode()
        return StepRow(self.loaded.chat.id, name, nth, kind, "open", self.now, shape, text)

    def _complete(self, row: StepRow, value: Any, at: int) -> StepRow:
        made = self._completed(row, value, at)
        self._steps[row.name] = made
        self._open = None
        self.done.append(made)
        return made

    def _completed(self, row: StepRow, value: Any, at: int) -> StepRow:
        text = _as_stored(row.name, value)
        return msgspec.structs.replace(row, state="done", value=text, done_at=at)


def _value(row: StepRow) -> Any:
    return None if row.value is None else msgspec.json.decode(row.value)


def _as_stored(name: str, value: Any) -> str:
    """Return a value's JSON, from which it must come back as it is: a run that resumes is to see what this one saw."""
    try:
        text = msgspec.json.encode(value)
        same = msgspec.json.decode(text) == value
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(f"The value of {name!r} can't be stored as JSON: {error}") from error
    if not same:
        raise TypeError(
            f"The value of {name!r}, a {type(value).__name__}, does not come back from JSON as it was. Make it of "
            "texts, numbers, booleans, None, lists and dicts."
        )
    return text.decode()


def _since(row: StepRow) -> str:
    return f"opened on {from_us(row.opened_at):%Y-%m-%d at %H:%M} UTC"


def _not_awaited(made: dict[str, Any]) -> str:
    names = ", ".join(map(repr, made))
    return f"Not awaited: {names}. Write `await chat.ask(...)`, and await each step before the next."
