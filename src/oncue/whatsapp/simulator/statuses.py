"""What becomes of an accepted message: sent, delivered, read or failed, and when the business hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from oncue.clock import SECOND
from oncue.whatsapp.simulator.config import Config
from oncue.whatsapp.simulator.content import Message
from oncue.whatsapp.simulator.faults import Fault
from oncue.whatsapp.simulator.ledger import Ledger
from oncue.whatsapp.simulator.phones import Phone
from oncue.whatsapp.simulator.timers import Timers
from oncue.whatsapp.simulator.webhooks import Update, Webhooks

TITLES = {
    131026: "Message undeliverable", 131047: "Re-engagement message", 131049: "Kept from a healthy ecosystem",
    131050: "Opted out of marketing", 130472: "User is part of an experiment", 131000: "Something went wrong",
    131053: "Media upload error",
}  # fmt: skip


@dataclass(slots=True)
class Sent:
    """A message of the business under way. Delays in seconds from its acceptance."""

    id: str
    phone: Phone
    message: Message
    echo: str | None
    category: str
    dice: Random
    lost: bool
    skips_delivered: bool
    fails_late: bool
    status_first: bool
    contacts: bool
    fails: int | None
    """The code of the failure that comes instead of the delivery."""


class Statuses:
    """Moves accepted messages on."""

    def __init__(
        self, config: Config, timers: Timers, ledger: Ledger, webhooks: Webhooks,
        arrived: Callable[[Phone, str, Message], float | None],
    ) -> None:  # fmt: skip
        self._config, self._timers, self._ledger, self._webhooks = config, timers, ledger, webhooks
        self._arrived = arrived
        """Has a person take in a message; returns the seconds to the reaction, if there is one."""

    def plan(self, wamid: str, phone: Phone, message: Message, echo: str | None, category: str,
             fault: Fault | None) -> Sent:  # fmt: skip
        """Draw what will become of a message; nothing happens yet."""
        dice, chaos = Random(f"{self._config.seed}:status:{wamid}"), self._config.webhooks
        # One draw each, always, so that one share does not change what another one does.
        lost, skips, late, first, absent = (dice.random() for _ in range(5))
        action = None if fault is None else fault.action
        fails = fault.code if fault is not None and action == "fail" else None if phone.there else 131026
        return Sent(
            wamid, phone, message, echo, category, dice,
            lost=lost < chaos.statuses_lost or action == "lose-status",
            skips_delivered=skips < chaos.delivered_skipped,
            fails_late=late < chaos.late_failed,
            status_first=first < chaos.status_first,
            contacts=absent >= chaos.contacts_absent,
            fails=fails,
        )  # fmt: skip

    async def begin(self, sent: Sent) -> None:
        """Start the message on its way; where its status overtakes the response, return when that was delivered."""
        delays = self._config.delays
        to_sent = self._draw(sent, delays.sent)
        to_phone = max(to_sent, self._draw(sent, delays.delivered))
        if sent.status_first and not sent.lost:
            self._ledger.write(self._timers.now(), "sent", wamid=sent.id, person=sent.phone.key)
            await self._webhooks.send_now(self._update(sent, "sent"))
        else:
            self._timers.after(to_sent, lambda: self._report(sent, "sent"))
        after = self._fail if sent.fails is not None else self._deliver
        self._timers.after(to_phone, lambda: after(sent))

    def read_by(self, phone: Phone) -> None:
        """Have a person read all that has arrived."""
        unread, phone.unread = phone.unread, {}
        for wamid, tell in unread.items():
            self._ledger.write(self._timers.now(), "read", wamid=wamid, person=phone.key)
            if phone.person.receipts:
                tell()

    def _draw(self, sent: Sent, median: float) -> float:
        return median * sent.dice.lognormvariate(0, self._config.delays.spread)

    def _report(self, sent: Sent, status: str, code: int | None = None) -> None:
        self._ledger.write(self._timers.now(), status, wamid=sent.id, person=sent.phone.key, code=code)
        self._tell(sent, status, code)

    def _tell(self, sent: Sent, status: str, code: int | None = None) -> None:
        if not sent.lost:
            self._webhooks.send(self._update(sent, status, code))

    def _fail(self, sent: Sent) -> None:
        self._report(sent, "failed", sent.fails)

    def _deliver(self, sent: Sent) -> None:
        phone = sent.phone
        if phone.blocked:
            # Nobody is told of a block: the message stays at one tick.
            self._ledger.write(self._timers.now(), "dropped", wamid=sent.id, person=phone.key, reason="blocked")
            return
        skipped = sent.skips_delivered and phone.person.receipts and phone.person.answers is not None
        self._ledger.write(self._timers.now(), "delivered", wamid=sent.id, person=phone.key)
        if not skipped:
            self._tell(sent, "delivered")
        if sent.fails_late:
            self._timers.after(self._draw(sent, 1), lambda: self._tell(sent, "failed", 131000))
        phone.unread[sent.id] = lambda: self._tell(sent, "read")
        reaction = self._arrived(phone, sent.id, sent.message)
        if phone.person.answers is not None:
            to_read = self._draw(sent, self._config.delays.read)
            self._timers.after(to_read if reaction is None else min(to_read, reaction), lambda: self.read_by(phone))

    def _update(self, sent: Sent, status: str, code: int | None = None) -> Update:
        person = sent.phone.person
        item: dict[str, Any] = {"id": sent.id, "status": status, "timestamp": str(self._timers.now() // SECOND)}
        if person.wa_id is not None:
            item["recipient_id"] = person.wa_id
        if person.user_id is not None:
            item["recipient_user_id"] = person.user_id
        if sent.echo is not None and (status != "failed" or self._config.webhooks.echo_on_failed):
            item["biz_opaque_callback_data"] = sent.echo
        if status == "failed":
            title = TITLES.get(code or 0, "Message failed")
            item["errors"] = [{"code": code, "title": title, "message": title, "error_data": {"details": title}}]
        elif status != "read":
            item["pricing"] = {"billable": True, "pricing_model": "PMP", "category": sent.category, "type": "regular"}
        return Update(f"{status}:{sent.id}", item, "statuses", sent.phone.contact() if sent.contacts else None)
