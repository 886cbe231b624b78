"""The people's phones: who is there, what each knows, and by which names the business reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from oncue.errors import ConfigError
from oncue.whatsapp.simulator.content import Message
from oncue.whatsapp.simulator.people import Person, Script


class Phone:
    """A person's phone, and the chat with the business on it."""

    __slots__ = (
        "_dice", "blocked", "heard_at", "key", "marketing", "messages", "person", "script", "seed", "serial",
        "there", "unread",
    )  # fmt: skip

    def __init__(self, person: Person, seed: int, *, there: bool = True) -> None:
        self.person, self.key, self.seed, self.there = person, person.key, seed, there
        self.script = Script(person, Random(f"{seed}:script:{person.key}"))
        self.heard_at: int | None = None
        self.blocked = False
        self.marketing = True
        self.serial = 0
        self.messages: dict[str, Message] = {}
        """By id: what is in the chat, of either side."""
        self.unread: dict[str, Callable[[], None]] = {}
        """By id: what arrived and was not read yet, with what tells the business of it."""

    def dice(self, what: str) -> Random:
        """Return a generator that depends on the seed, this person and what is drawn, and on nothing else."""
        return Random(f"{self.seed}:{what}:{self.key}")

    def contact(self) -> dict[str, Any]:
        """Return what webhooks say of the person."""
        person = self.person
        names = {"wa_id": person.wa_id, "user_id": person.user_id}
        return {"profile": {"name": person.name}} | {name: known for name, known in names.items() if known is not None}

    def new_id(self) -> str:
        """Return the id of the chat's next message."""
        self.serial += 1
        return f"wamid.{self.dice(str(self.serial)).getrandbits(128):032X}"


class Phones:
    """Everybody's."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._by_name: dict[str, Phone] = {}
        self._all: dict[str, Phone] = {}

    def __iter__(self) -> Iterator[Phone]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def add(self, person: Person, *, there: bool = True) -> Phone:
        """Give a person a phone. Raises ConfigError for names that somebody has."""
        names = [name for name in (person.wa_id, person.user_id) if name is not None]
        for name in names:
            if (other := self._by_name.get(name)) is not None and other.there:
                raise ConfigError(f"{name} belongs to {other.person.name!r} already.")
        phone = Phone(person, self._seed, there=there)
        self._all[phone.key] = phone
        for name in names:
            self._by_name[name] = phone
        return phone

    def find(self, name: str) -> Phone | None:
        """Return the phone with this number (with or without +) or user id."""
        return self._by_name.get(name.lstrip("+"))
