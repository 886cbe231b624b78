"""What a conversation's function is given: its steps, each recorded under its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from oncue.clock import from_us, seconds_to_us, to_us
from oncue.conversation.post import After, Delay, Remind, Span, make_post, make_question
from oncue.errors import ConfigError
from oncue.transport import Content, Option, Template

if TYPE_CHECKING:
    from oncue.conversation.replay import Run

T = TypeVar("T")
Plain = bool | None


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a conversation is with. ``name``: as they call themselves, ``timezone``: as it was stored, where known."""

    id: int
    address: str | None
    user_id: str | None
    name: str | None
    timezone: str | None


class Chat:
    """One run of a conversation with one person.

    The function is run from its start each time: steps that are recorded return their values at once, and the first
    that is not ends the run until it is. So everything else in it must come to the same each time: chance, the time
    of day and what is read elsewhere belong into ``do``. Steps are awaited one after the other.
    """

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def id(self) -> int:
        """The number of this run of the conversation."""
        return self._run.loaded.chat.id

    @property
    def person(self) -> Person:
        """Whom it is with, as known now; that may differ from run to run."""
        row = self._run.loaded.person
        return Person(row.id, row.address, row.user_id, row.name, row.timezone)

    @property
    def started_at(self) -> datetime:
        """When it began, UTC."""
        return from_us(self._run.loaded.chat.started_at)

    @property
    def tries(self) -> int:
        """How many answers to the open question did not fit so far."""
        return self._run.loaded.chat.tries

    @overload
    def ask(
        self,
        name: str,
        question: str | Content,
        *,
        check: Callable[[str], Plain] | Callable[[str], Awaitable[Plain]] | None = None,
        choices: Sequence[str | Option] | None = None,
        delay: Delay = 0,
        remind: Sequence[Remind] = (),
        retry: str | None = None,
        settle: Span = 0,
        settle_most: Span | None = None,
        template: Template | None = None,
        after: After = "sent",
        button: str = "Choose",
    ) -> Coroutine[Any, Any, str]: ...
    @overload
    def ask(
        self,
        name: str,
        question: str | Content,
        *,
        check: Callable[[str], Coroutine[Any, Any, T]],
        choices: Sequence[str | Option] | None = None,
        delay: Delay = 0,
        remind: Sequence[Remind] = (),
        retry: str | None = None,
        settle: Span = 0,
        settle_most: Span | None = None,
        template: Template | None = None,
        after: After = "sent",
        button: str = "Choose",
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def ask(
        self,
        name: str,
        question: str | Content,
        *,
        check: Callable[[str], T],
        choices: Sequence[str | Option] | None = None,
        delay: Delay = 0,
        remind: Sequence[Remind] = (),
        retry: str | None = None,
        settle: Span = 0,
        settle_most: Span | None = None,
        template: Template | None = None,
        after: After = "sent",
        button: str = "Choose",
    ) -> Coroutine[Any, Any, T]: ...
    def ask(
        self,
        name: str,
        question: str | Content,
        *,
        check: Callable[[str], Any] | None = None,
        choices: Sequence[str | Option] | None = None,
        delay: Delay = 0,
        remind: Sequence[Remind] = (),
        retry: str | None = None,
        settle: Span = 0,
        settle_most: Span | None = None,
        template: Template | None = None,
        after: After = "sent",
        button: str = "Choose",
    ) -> Coroutine[Any, Any, Any]:
        """Ask, and return the answer: its text, the id of the choice, or what ``check`` made of it.

        ``name`` is what the answer is recorded under. ``check`` (sync or async) is given the text or the choice's id:
        it returns the value to keep, which JSON can hold; None or True keep the answer as it is; False, or a
        ValueError with a text for the person, refuses it. ``retry`` is said where there is no such text.
        ``choices``: texts, or Options with ids of their own; to tap, or numbered in the text where there are too many
        for that; a typed title or number counts too. ``button`` opens a list of them.
        ``delay``: seconds (or timedelta) from the answer or message before, or (least, most) for one drawn evenly.
        ``after="delivered"``: the delay counts from the delivery of the message before, waiting 30 s for that at most.
        ``remind``: reminders, which end with the first word of an answer.
        ``settle``: wait for so many seconds of silence, ``settle_most`` in all (5 times as many by default), and take
        all that was written meanwhile for one answer, line by line.
        ``template``: what is sent instead where the messenger's window for free-form messages is shut.
        Raises ConfigError or InvalidJob for what can't work; then the conversation is parked.
        """
        sends = {"template": template, "delay": delay, "after": after, "remind": remind}
        made = make_question(question, choices, button, check, retry, settle, settle_most, **sends)
        return self._run.make(name, self._run.ask(name, made))

    def say(
        self,
        name: str,
        message: str | Content,
        *,
        delay: Delay = 0,
        template: Template | None = None,
        after: After = "sent",
    ) -> Coroutine[Any, Any, None]:
        """Send a message, and return once it was sent. The arguments are those of ``ask``."""
        post = make_post(message, (), "", template, delay, after)
        return self._run.make(name, self._run.say(name, post))

    def sleep(
        self, name: str, delay: Span | None = None, *, until: datetime | None = None
    ) -> Coroutine[Any, Any, None]:
        """Return after a delay (seconds or timedelta), or at a time (an aware datetime), however long that is.

        Raises ConfigError unless exactly one is given, or InvalidTime.
        """
        if (delay is None) == (until is None):
            raise ConfigError("Give sleep a delay or until=, one of them.")
        wait = None if delay is None else seconds_to_us(delay)
        moment = 0 if until is None else to_us(until)
        return self._run.make(name, self._run.sleep(name, wait, moment))

    @overload
    def do(self, name: str, function: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]: ...
    @overload
    def do(self, name: str, function: Callable[[], T]) -> Coroutine[Any, Any, T]: ...
    def do(self, name: str, function: Callable[[], Any]) -> Coroutine[Any, Any, Any]:
        """Call a function (sync or async) once it is known that it has to be, and return its recorded result.

        The result is something that JSON can hold. After a crash before it was recorded the function is called again:
        give ``f"{chat.id}-{name}"`` to others as a key that tells that both calls are one. What it raises is tried
        again, five times in all, then the conversation is parked.
        """
        return self._run.make(name, self._run.do(name, function))
