"""Scripted people: they read what arrives and answer after a while. Thousands of them cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from oncue.errors import ConfigError
from oncue.whatsapp.simulator.content import Message

Answers = Sequence[str] | Callable[[Message, Random], str | None]


@dataclass(frozen=True, slots=True)
class Person:
    """Someone with a phone, and what they do with what they receive.

    A message *asks* where it has options to tap or a question mark. Whoever has no ``answers`` only reads.
    """

    wa_id: str | None = None
    """The phone number, digits only. None: known to the business by ``user_id`` alone."""
    name: str = "Someone"
    user_id: str | None = None
    """The business-scoped user id, such as ``US.1349...``."""
    answers: Answers | None = None
    """Texts, one for each question, the last one again and again; or a function of the message and a random
    generator, where None is silence. Where the message has options, the one with that title or id is tapped,
    and a random one where ``answers`` is empty."""
    pace: tuple[float, float] = (0.5, 3.0)
    """Seconds from the arrival of a question to the answer; uniform."""
    ignores: Collection[int] = ()
    """The questions (from 1) that stay without an answer until something else arrives, such as a reminder."""
    fragments: int = 1
    """Answers come in so many parts, by words, where they have so many."""
    fragment_gap: float = 0.5
    """Seconds between the parts."""
    repeats: bool = False
    """Whether a question that arrives twice in a row is answered twice."""
    receipts: bool = True
    """Whether the business learns what was read."""

    def __post_init__(self) -> None:
        """Refuse a person without any id, and a phone number that is none."""
        if self.wa_id is None and self.user_id is None:
            raise ConfigError(f"{self.name!r} needs a wa_id (phone number), a user_id, or both.")
        if self.wa_id is not None and not (self.wa_id.isascii() and self.wa_id.isdigit()):
            raise ConfigError(f"A wa_id has digits only, such as 4915700000001, not {self.wa_id!r}.")
        if self.fragments < 1:
            raise ConfigError(f"An answer has 1 fragment or more, not {self.fragments}.")

    @property
    def key(self) -> str:
        """What this person is called in the ledger: the phone number, else the user id."""
        return self.wa_id or self.user_id or ""


@dataclass(frozen=True, slots=True)
class Reaction:
    """Something that a person writes, or the id of an option that is tapped, so many seconds from now."""

    after: float
    text: str = ""
    option: str | None = None


class Script:
    """A person's life: how far the script is."""

    __slots__ = ("_dice", "_last", "_pending", "_person", "_questions", "_used")

    def __init__(self, person: Person, dice: Random) -> None:
        self._person, self._dice = person, dice
        self._questions = self._used = 0
        self._last = ""
        self._pending: Message | None = None

    def receives(self, message: Message) -> list[Reaction]:
        """Take in a message. Returns what is done about it; nothing is silence."""
        person = self._person
        if person.answers is None:
            return []
        asks = bool(message.options) or "?" in message.text
        again = message.text == self._last and not person.repeats
        self._last = message.text
        if asks and not again:
            self._questions += 1
            if self._questions in person.ignores:
                self._pending = message
                return []
        elif self._pending is not None:
            # The reminder of a question that was left alone: now it is answered.
            message, self._pending = (message if message.options else self._pending), None
        else:
            return []
        self._pending = None
        return self._answer(message, person.answers)

    def _answer(self, message: Message, answers: Answers) -> list[Reaction]:
        after = self._dice.uniform(*self._person.pace)
        if callable(answers):
            text = answers(message, self._dice)
        elif answers:
            text = answers[min(self._used, len(answers) - 1)]
        else:
            text = self._dice.choice(message.options).title if message.options else "Yes"
        self._used += 1
        if text is None:
            return []
        for option in message.options:
            if text in (option.title, option.id):
                return [Reaction(after, option=option.id)]
        return [Reaction(after + i * self._person.fragment_gap, part) for i, part in enumerate(self._parts(text))]

    def _parts(self, text: str) -> list[str]:
        words = text.split(" ")
        count = min(self._person.fragments, len(words))
        if count == 1:
            return [text]
        cuts = [round(i * len(words) / count) for i in range(count + 1)]
        return [" ".join(words[a:b]) for a, b in pairwise(cuts)]
