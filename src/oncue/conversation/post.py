"""What a step sends and what it takes for an answer: the arguments of ``ask`` and ``say``, checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import msgspec

from oncue.clock import SECOND, seconds_to_us
from oncue.conversation.options import as_options, chosen, numbered, offer, renamed
from oncue.errors import ConfigError, InvalidTime
from oncue.transport import Choices, Content, Option, Template, Text, Transport

Span = float | timedelta
Delay = Span | tuple[Span, Span]
After = Literal["sent", "delivered"]
NO_REF = "0" * 32
UNFIT = "Sorry, I did not understand that. Please try again."
# What int() and float() say is no text for a person.
_TECHNICAL = ("invalid literal for ", "could not convert string to ")


def hours(number: float) -> timedelta:
    """Return a span of so many hours."""
    return timedelta(hours=number)


def minutes(number: float) -> timedelta:
    """Return a span of so many minutes."""
    return timedelta(minutes=number)


@dataclass(frozen=True, slots=True)
class Remind:
    """A reminder of a question without an answer, ``after`` (seconds or timedelta) the question was really sent.

    ``text``: what it says (None: the question again); ``template``: what is sent instead where the window is shut.
    Raises ConfigError for what can't work.
    """

    after: Span
    text: str | Content | None = None
    template: Template | None = None

    def __post_init__(self) -> None:
        if _us("after", self.after) == 0:
            raise ConfigError(f"{self!r}: a reminder comes some time after its question.")
        if not _is(self.template, Template | None) or not _is(self.text, str | Content | None):
            raise ConfigError(f"{self!r}: text is a text or content, and template a Template.")


class Nudge(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reminder as it stands in the record. ``after``: microseconds; ``content``: None for the question again."""

    after: int
    content: Content | None = None
    template: Template | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an open step keeps for later: it stands in the step's value until that is the answer.

    ``until``: when a sleep ends. ``behind``: the message whose delivery its own waits for, and then ``delay``.
    """

    remind: tuple[Nudge, ...] = ()
    until: int | None = None
    behind: int | None = None
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a person wrote at a step: ``texts`` in order, ``tapped`` the id of a tapped answer, ``at`` when the last of
    it was heard. ``settled``: no more is waited for."""

    texts: tuple[str, ...]
    tapped: str | None
    at: int
    settled: bool

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.texts).strip()


@dataclass(frozen=True, slots=True)
class Fit:
    """An answer, as it is kept."""

    value: Any


@dataclass(frozen=True, slots=True)
class Unfit:
    """No answer. ``text``: what the person is told; None: the question again."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Post:
    """What a step sends: ``low`` to ``high`` microseconds after the answer or the message before."""

    body: str | Content
    options: tuple[Option, ...]
    button: str
    template: Template | None
    low: int
    high: int
    after: After
    remind: tuple[Remind, ...] = ()

    def content(self, ref: str, transport: Transport) -> Content:
        """Return what is sent as the message ``ref``. Raises InvalidJob for what the messenger would refuse."""
        if self.options and isinstance(self.body, str):
            content = offer(self.body, self.options, self.button, ref, transport)
        else:
            content = Text(self.body) if isinstance(self.body, str) else renamed(self.body, ref)
        transport.check(content)
        return content

    def check(self, transport: Transport) -> None:
        """Raise InvalidJob where the messenger would refuse any of what may be sent."""
        self.content(NO_REF, transport)
        nudges = self.nudges()
        templates = (self.template, *(one.template for one in nudges)) if transport.capabilities.templates else ()
        for content in (*templates, *(one.content for one in nudges)):
            if content is not None:
                transport.check(content)

    def nudges(self) -> tuple[Nudge, ...]:
        """Return the reminders as they are kept. One that asks again has the question's template, unless its own."""
        return tuple(
            Nudge(
                seconds_to_us(one.after),
                Text(one.text) if isinstance(one.text, str) else one.text,
                self.template if one.template is None and one.text is None else one.template,
            )
            for one in sorted(self.remind, key=lambda one: seconds_to_us(one.after))
        )


@dataclass(frozen=True, slots=True)
class Question:
    """An ``ask``: its message, and what it takes for an answer."""

    post: Post
    check: Callable[[str], Any] | None = None
    retry: str | None = None
    settle: int = 0
    settle_most: int = 0
    options: tuple[Option, ...] = field(default=())

    @property
    def shape(self) -> str:
        """What must still be so for a recorded answer to count."""
        return "choice" if self.options else "text"

    async def judge(self, heard: Heard) -> Fit | Unfit:
        """Tell whether this is an answer. Raises what ``check`` raises, but for ValueError."""
        answer = heard.text
        if self.options:
            found = chosen(self.options, answer, heard.tapped)
            if found is None:
                return Unfit(self.retry)
            answer = found
        elif not answer:
            return Unfit(self.retry or UNFIT)
        if self.check is None:
            return Fit(answer)
        try:
            value = self.check(answer)
            value = await value if inspect.isawaitable(value) else value
        except ValueError as error:
            text = str(error).strip()
            # Subclasses, such as those of pydantic or json, speak to developers.
            plain = type(error) is ValueError and text and not text.startswith(_TECHNICAL)
            return Unfit(text if plain else self.retry or UNFIT)
        if value is False or not _finite(value):
            return Unfit(self.retry or UNFIT)
        return Fit(answer if value is None or value is True else value)

    def hint(self, text: str | None, ref: str, transport: Transport) -> Content:
        """Return what a person is told whose words were no answer."""
        if text is None:
            return self.post.content(ref, transport)
        if self.options:
            again = offer(text, self.options, self.post.button, ref, transport)
            return again if isinstance(again, Choices) else Text(numbered(text, self.options))
        return Text(text)


def _finite(value: object) -> bool:
    """Tell whether all numbers are ones that JSON has: float() also takes "nan" and "inf", which people may type."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_finite, value))


def make_post(
    body: str | Content,
    options: tuple[Option, ...],
    button: str,
    template: Template | None,
    delay: Delay,
    after: After,
    remind: Sequence[Remind] = (),
) -> Post:
    """Check what a step sends. Raises ConfigError."""
    if not _is(body, str | Content) or (isinstance(body, str) and not body.strip()):
        raise ConfigError(f"What is sent is a text, or content such as Choices or Template, not {body!r}.")
    if not _is(template, Template | None):
        raise ConfigError(f"template is a Template, such as Template('follow_up'), not {template!r}.")
    if after not in ("sent", "delivered"):
        raise ConfigError(f"after is 'sent' or 'delivered', not {after!r}.")
    if not all(_is(one, Remind) for one in remind):
        raise ConfigError(f"remind is a list of Remind(...), not {remind!r}.")
    low, high = delay if isinstance(delay, tuple) else (delay, delay)
    first, last = _us("delay", low), _us("delay", high)
    if first > last:
        raise ConfigError(f"delay={delay!r}: the first is the shorter one.")
    return Post(body, options, button, template, first, last, after, tuple(remind))


def make_question(
    body: str | Content,
    choices: Sequence[str | Option] | None,
    button: str,
    check: Callable[[str], Any] | None,
    retry: str | None,
    settle: Span,
    settle_most: Span | None,
    **sends: Any,
) -> Question:
    """Check an ``ask``. Raises ConfigError."""
    try:
        options = () if choices is None else as_options(choices)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if isinstance(body, Choices):
        if options:
            raise ConfigError("Give choices=, or Choices as the question, not both.")
        options = body.options
    if check is not None and not callable(check):
        raise ConfigError(f"check is a function of the answer's text, not {check!r}.")
    wait = _us("settle", settle)
    most = 5 * wait if settle_most is None else _us("settle_most", settle_most)
    if most < wait:
        raise ConfigError(f"settle_most ({settle_most!r}) is at least settle ({settle!r}).")
    return Question(make_post(body, options, button, **sends), check, retry, wait, most, options)


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind)


def _us(name: str, span: Span) -> int:
    try:
        return seconds_to_us(span)
    except InvalidTime as error:
        raise ConfigError(f"{name}: {error}") from error


DELIVERED_WITHIN = 30 * SECOND
"""Who waits for the delivery of a message waits no longer than this (microseconds) after it was sent."""
