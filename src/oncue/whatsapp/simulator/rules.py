"""What the number may send now: throughput, pairs, the window, people a day, templates."""

from __future__ import annotations

from oncue.clock import SECOND
from oncue.whatsapp.simulator.config import Config, Limits, Template
from oncue.whatsapp.simulator.content import Message, Refused, wrong
from oncue.whatsapp.simulator.phones import Phone

_DAY = 86_400 * SECOND


class Gcra:
    """One message each ``every`` microseconds, ``burst`` of them ahead of time.

    The generic cell rate algorithm (ITU-T I.371). ``strict``: what was borrowed within the first ``every`` of a burst
    is all paid back before anything more goes.
    """

    __slots__ = ("_began", "_burst", "_every", "_paid", "_strict")

    def __init__(self, every: int, burst: int, *, strict: bool = False) -> None:
        self._every, self._burst, self._strict = every, burst, strict
        self._paid = self._began = 0

    def allows(self, now: int) -> bool:
        """Tell whether one more may go now."""
        if self._paid <= now:
            return True
        if self._strict and now - self._began >= self._every:
            return False
        return self._paid - now <= (self._burst - 1) * self._every

    def take(self, now: int) -> None:
        """Count one, allowed or not."""
        if self._paid <= now:
            self._began = now
        self._paid = max(self._paid, now) + self._every


class Rules:
    """The limits of one number."""

    def __init__(self, config: Config) -> None:
        self._limits: Limits = config.limits
        rate = self._limits.throughput
        self._number = None if rate is None else Gcra(round(SECOND / rate), max(1, round(rate)))
        self._pairs: dict[str, Gcra] = {}
        self._opened: dict[str, int] = {}
        self.templates = {(each.name, each.language): each for each in config.templates}

    def heard(self, now: int) -> None:
        """Count a message of a person, where those count."""
        if self._number is not None and self._limits.inbound_counts:
            self._number.take(now)

    def check(self, message: Message, phone: Phone, now: int) -> Template | None:
        """Let a message pass and count it, or raise Refused. Returns the template that it uses."""
        if self._number is not None and not self._number.allows(now):
            raise Refused(130429, "Rate limit hit", "Cloud API message throughput has been reached.", 429)
        template = None if message.template is None else self._template(message, phone)
        shut = not self._in_window(phone, now)
        if shut and template is None:
            raise Refused(
                131047, "Re-engagement message", "More than 24 hours have passed since this person's last message."
            )
        if shut:
            self._open(phone, now)
        pair = self._pair(phone)
        if pair is not None and not pair.allows(now):
            raise Refused(131056, "Pair rate limit hit", "Too many messages to this person in a short time.", 429)
        for limit in (self._number, pair):
            if limit is not None:
                limit.take(now)
        if shut:
            self._opened.setdefault(phone.key, now)
        return template

    def _in_window(self, phone: Phone, now: int) -> bool:
        window = self._limits.window
        if window is None:
            return True
        return phone.heard_at is not None and now - phone.heard_at < window * SECOND

    def _open(self, phone: Phone, now: int) -> None:
        most = self._limits.people_a_day
        if most is None:
            return
        self._opened = {key: at for key, at in self._opened.items() if now - at < _DAY}
        if phone.key not in self._opened and len(self._opened) >= most:
            raise Refused(131048, "Spam rate limit hit", f"{most} people were reached in the last 24 hours already.")

    def _pair(self, phone: Phone) -> Gcra | None:
        every = self._limits.pair_every
        if every is None:
            return None
        if phone.key not in self._pairs:
            strict = self._limits.strict_payback
            self._pairs[phone.key] = Gcra(round(every * SECOND), self._limits.pair_burst, strict=strict)
        return self._pairs[phone.key]

    def _template(self, message: Message, phone: Phone) -> Template:
        assert message.template is not None
        name, language, parameters = message.template
        template = self.templates.get((name, language))
        if template is None:
            raise Refused(132001, "Template does not exist", f"No template {name!r} in {language!r}.", 404)
        if template.state == "paused":
            raise Refused(132015, "Template is paused", f"{name!r} is paused for its low quality.")
        if template.state == "disabled":
            raise Refused(132016, "Template is disabled", f"{name!r} was paused too often.")
        if len(parameters) != template.parameters:
            raise Refused(
                132000,
                "Number of parameters does not match",
                f"body: {len(parameters)} given, {template.parameters} expected.",
            )
        if template.category == "marketing" and not phone.marketing:
            raise Refused(131050, "Opted out of marketing", "This person has chosen to receive no marketing messages.")
        return template


def shown(template: Template, parameters: tuple[str, ...]) -> str:
    """Return what a person sees of a template."""
    text = template.body or f"[{template.name}] " + " ".join(f"{{{{{i + 1}}}}}" for i in range(len(parameters)))
    for i, parameter in enumerate(parameters):
        text = text.replace(f"{{{{{i + 1}}}}}", parameter)
    return text.strip()


def check_reply(message: Message, phone: Phone) -> None:
    """Refuse a reply or a reaction to a message that is not in this chat."""
    if message.replies_to is not None and message.replies_to not in phone.messages:
        raise wrong(f"{message.replies_to} is no message of this chat.")
