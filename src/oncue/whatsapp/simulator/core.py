"""The simulator itself: the number, the people's phones, and what happens between them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from oncue.clock import SECOND
from oncue.errors import ConfigError
from oncue.whatsapp.simulator.config import Config, Template
from oncue.whatsapp.simulator.content import Message, Refused, invalid, missing, read_message, wrong
from oncue.whatsapp.simulator.faults import Fault, Faults
from oncue.whatsapp.simulator.ledger import Ledger
from oncue.whatsapp.simulator.people import Person, Reaction
from oncue.whatsapp.simulator.phones import Phone, Phones
from oncue.whatsapp.simulator.rules import Rules, check_reply, shown
from oncue.whatsapp.simulator.statuses import Sent, Statuses
from oncue.whatsapp.simulator.timers import ShiftedClock, Timers
from oncue.whatsapp.simulator.webhooks import Update, Webhooks


class Simulator:
    """A simulated number. All that is not the Cloud API's is for tests and people, never for applications."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.ledger)
        self.timers = Timers(config.clock or ShiftedClock())
        self.faults = Faults(config.faults, config.seed)
        self.rules = Rules(config)
        self.webhooks = Webhooks(config, self.timers, self.ledger)
        self.phones = Phones(config.seed)
        self._received: dict[str, Phone] = {}
        self._statuses = Statuses(config, self.timers, self.ledger, self.webhooks, self._arrived)
        self.add(*config.people)

    # -- what the application calls -----------------------------------------------------------------------------

    def accept(self, body: Mapping[str, Any], fault: Fault | None = None) -> tuple[dict[str, Any], Sent]:
        """Take a message, or raise Refused. Returns the response, and the message to be started on its way."""
        phone, named = self._recipient(body)
        message = read_message(body)
        check_reply(message, phone)
        echo = body.get("biz_opaque_callback_data")
        if echo is not None and (not isinstance(echo, str) or len(echo) > 512):
            raise wrong("biz_opaque_callback_data is a string of at most 512 characters.")
        template = self.rules.check(message, phone, self.timers.now())
        if template is not None and message.template is not None:
            message = Message("template", shown(template, message.template[2]), template=message.template,
                              replies_to=message.replies_to)  # fmt: skip
        wamid = phone.new_id()
        phone.messages[wamid] = message
        self.ledger.write(
            self.timers.now(), "accepted", wamid=wamid, person=phone.key, type=message.kind, text=message.text,
            options=[{"id": o.id, "title": o.title, "description": o.description, "row": o.row}
                     for o in message.options] or None,
            button=message.button or None, template=None if template is None else template.name,
            replies_to=message.replies_to, echo=echo,
        )  # fmt: skip
        category = "service" if template is None else template.category
        contact = {"input": named, "wa_id": phone.person.wa_id, "user_id": phone.person.user_id}
        answer: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "contacts": [{name: known for name, known in contact.items() if known is not None}],
            "messages": [{"id": wamid} | ({} if template is None else {"message_status": "accepted"})],
        }
        return answer, self._statuses.plan(wamid, phone, message, echo, category, fault)

    async def begin(self, sent: Sent) -> None:
        """Start an accepted message on its way to the person."""
        await self._statuses.begin(sent)

    def mark_read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a read receipt, perhaps with a typing indicator."""
        if body["status"] != "read":
            raise wrong("status is read.")
        wamid = body.get("message_id")
        if not isinstance(wamid, str) or not wamid:
            raise missing("message_id")
        phone = self._received.get(wamid)
        if phone is None:
            raise wrong(f"{wamid} is no message that this number has received.")
        typing = body.get("typing_indicator")
        if typing is not None and (not isinstance(typing, Mapping) or typing.get("type") != "text"):
            raise wrong("typing_indicator.type is text.")
        self.ledger.write(
            self.timers.now(), "typing" if typing is not None else "marked-read", wamid=wamid, person=phone.key
        )
        return {"success": True}

    def refuse(self, error: Refused, body: Mapping[str, Any]) -> None:
        """Note a refusal."""
        person = body.get("to") or body.get("recipient")
        self.ledger.write(
            self.timers.now(), "refused", code=error.code, reason=error.details,
            to=None if person is None else str(person), echo=body.get("biz_opaque_callback_data"),
        )  # fmt: skip

    def _recipient(self, body: Mapping[str, Any]) -> tuple[Phone, str]:
        if body.get("recipient_type", "individual") != "individual":
            raise invalid("Param recipient_type must be individual.")
        by_number = body.get("to") not in (None, "")
        name = body.get("to") if by_number else body.get("recipient")
        if name is None or name == "":
            raise missing("to")
        if not isinstance(name, str):
            raise invalid("Params to and recipient must be strings.")
        if by_number and not (name.lstrip("+").isascii() and name.lstrip("+").isdigit() and 6 < len(name) < 18):
            raise wrong(f"{name!r} is no phone number.")
        if by_number and name.lstrip("+") == self.config.display_number:
            raise Refused(131021, "Recipient cannot be sender", "Sender and recipient are the same number.")
        phone = self.phones.find(name)
        if phone is None:
            if not by_number:
                raise Refused(131026, "Message undeliverable", f"Nobody has the user id {name!r}.")
            there = self.config.strangers == "join"
            phone = self._add(Person(name.lstrip("+"), name=f"+{name.lstrip('+')}"), there=there)
        return phone, name

    # -- what the people do -------------------------------------------------------------------------------------

    def add(self, *people: Person) -> None:
        """Give people phones. Raises ConfigError for a number or user id that somebody has."""
        for person in people:
            self._add(person)

    def say(self, name: str, text: str, *, replies_to: str | None = None, age: float = 0) -> str:
        """Have a person write now, or ``age`` seconds ago. Returns the message's id.

        Raises ConfigError where nobody has that number or user id, and for somebody who has blocked the business.
        """
        return self._inbound(self.phone(name), {"type": "text", "text": {"body": text}}, text, None, replies_to, age)

    def tap(self, name: str, option: str, *, message: str | None = None) -> str:
        """Have a person tap the button or row with this id or title, in the latest message that has it."""
        phone = self.phone(name)
        for wamid, seen in reversed(phone.messages.items()):
            if message not in (None, wamid):
                continue
            for each in seen.options:
                if option in (each.id, each.title):
                    reply = {"id": each.id, "title": each.title}
                    if each.row and each.description:
                        reply["description"] = each.description
                    kind = "list_reply" if each.row else "button_reply"
                    content = {"type": "interactive", "interactive": {"type": kind, kind: reply}}
                    return self._inbound(phone, content, each.title, each.id, wamid, 0)
        raise ConfigError(f"{phone.person.name!r} has received no button or row {option!r}.")

    def send(self, name: str, content: Mapping[str, Any], *, replies_to: str | None = None, age: float = 0) -> str:
        """Have a person send anything else, as it stands in a webhook: ``{"type": "image", "image": {...}}``."""
        if not isinstance(content.get("type"), str):
            raise ConfigError("A message has a type, such as image.")
        return self._inbound(self.phone(name), dict(content), "", None, replies_to, age)

    def read(self, name: str) -> None:
        """Have a person read all that has arrived."""
        self._statuses.read_by(self.phone(name))

    def block(self, name: str, blocked: bool = True) -> None:
        """Have a person block the business, or end that."""
        phone = self.phone(name)
        phone.blocked = blocked
        self.ledger.write(self.timers.now(), "blocked" if blocked else "unblocked", person=phone.key)

    def prefer(self, name: str, marketing: bool) -> None:
        """Have a person want marketing messages, or none any more; the application is told."""
        phone, now = self.phone(name), self.timers.now()
        phone.marketing = marketing
        value = "resume" if marketing else "stop"
        line = self.ledger.write(now, "preference", person=phone.key, marketing=value)
        names = {"wa_id": phone.person.wa_id, "user_id": phone.person.user_id}
        item = {name: known for name, known in names.items() if known is not None} | {
            "detail": f"User requested to {value} marketing messages", "category": "marketing_messages",
            "value": value, "timestamp": now // SECOND,
        }  # fmt: skip
        label = f"preference:{phone.key}:{line['n']}"
        self.webhooks.send(Update(label, item, "user_preferences", phone.contact(), "user_preferences"))

    def phone(self, name: str) -> Phone:
        """Return a person's phone. Raises ConfigError where nobody has that number or user id."""
        phone = self.phones.find(name)
        if phone is None:
            raise ConfigError(f"Nobody here has the number or user id {name!r}.")
        return phone

    def _add(self, person: Person, *, there: bool = True) -> Phone:
        phone = self.phones.add(person, there=there)
        self.ledger.write(
            self.timers.now(), "joined", person=phone.key, name=person.name, wa_id=person.wa_id, user_id=person.user_id
        )
        return phone

    def _inbound(self, phone: Phone, content: dict[str, Any], text: str, choice: str | None, replies_to: str | None,
                 age: float) -> str:  # fmt: skip
        if phone.blocked:
            raise ConfigError(f"{phone.person.name!r} has blocked the business, and so can't write to it.")
        self._statuses.read_by(phone)
        now = self.timers.now()
        at = now - round(age * SECOND)
        wamid, person = phone.new_id(), phone.person
        phone.heard_at = max(phone.heard_at or 0, at)
        phone.messages[wamid] = Message("received", text)
        self._received[wamid] = phone
        self.rules.heard(now)
        self.ledger.write(now, "said", wamid=wamid, person=phone.key, type=content["type"], text=text or None,
                          choice=choice, replies_to=replies_to, age=age or None)  # fmt: skip
        item: dict[str, Any] = {"id": wamid, "timestamp": str(at // SECOND)} | content
        if person.wa_id is not None:
            item["from"] = person.wa_id
        if person.user_id is not None:
            item["from_user_id"] = person.user_id
        if replies_to is not None:
            item["context"] = {"from": self.config.display_number, "id": replies_to}
        self.webhooks.send(Update(f"said:{wamid}", item, "messages", phone.contact()))
        return wamid

    def _arrived(self, phone: Phone, wamid: str, message: Message) -> float | None:
        reactions = phone.script.receives(message)
        for reaction in reactions:
            self.timers.after(reaction.after, partial(self._react, phone, wamid, reaction))
        return reactions[0].after if reactions else None

    def _react(self, phone: Phone, wamid: str, reaction: Reaction) -> None:
        if phone.blocked:
            return
        if reaction.option is None:
            self.say(phone.key, reaction.text)
        else:
            self.tap(phone.key, reaction.option, message=wamid)

    # -- what the surroundings do -------------------------------------------------------------------------------

    def put_template(self, template: Template) -> None:
        """Add a template, or change one: pause it, disable it."""
        self.rules.templates[template.name, template.language] = template

    def outage(self, seconds: float | None = None, *, flood: bool = True) -> None:
        """Deliver no update for so many seconds (None: until ``webhooks.end_outage``); tries go on, ever rarer."""
        self.webhooks.out = True
        self.ledger.write(self.timers.now(), "outage", seconds=seconds)
        if seconds is not None:
            self.timers.after(seconds, lambda: self.webhooks.end_outage(flood=flood))

    def flood(self, count: int, age: float = 3_600, text: str = "old") -> None:
        """Deliver so many messages that people wrote ``age`` seconds ago, as after a long outage."""
        people = [phone for phone in self.phones if phone.there and not phone.blocked]
        if not people:
            raise ConfigError("A flood of messages needs people.")
        for i in range(count):
            self.say(people[i % len(people)].key, f"{text} {i + 1}", age=age)

    async def close(self) -> None:
        """End everything that is under way."""
        self.timers.close()
        await self.webhooks.close()
        self.ledger.close()
