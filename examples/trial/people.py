"""Scripted people for the stand-in: they read what arrives on their phone, and answer, or don't."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

ANSWERS = ("Yes", "Nö, lieber später", "Twice a week", "Only at the weekend 🙂", "I'm not sure yet", "3")


@dataclass(slots=True)
class Person:
    """Someone with a phone.

    ``ignores`` is the number of the one message (from 1) that this person leaves unanswered, until something
    else arrives, such as a reminder. Everything else that asks something is answered after a moment that is
    drawn from ``pace`` (seconds, shortest and longest).
    """

    wa_id: str
    name: str
    ignores: int | None = None
    pace: tuple[float, float] = (0.2, 1.0)
    received: list[str] = field(default_factory=list)

    def reads(self, text: str, dice: Random) -> tuple[float, str] | None:
        """Take in one message. Returns (seconds until the answer, the answer), or None for silence."""
        self.received.append(text)
        if "?" not in text or len(self.received) == self.ignores:
            return None
        return dice.uniform(*self.pace), dice.choice(ANSWERS)


def cast(number: int = 8) -> list[Person]:
    """The people of the demo: most answer at once, every fourth leaves one question unanswered."""
    names = ("Ana", "Bilal", "Chiara", "Deniz", "Emeka", "Femke", "Grace", "Hana", "Ivo", "Jun", "Kofi", "Lena")
    return [
        Person(f"4915700{i:06d}", names[i % len(names)], ignores=2 + i // 4 % 2 if i % 4 == 2 else None)
        for i in range(number)
    ]
