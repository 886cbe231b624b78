"""The application that the tests kill: a conversation of many questions over WhatsApp, web and worker in one process.

Run as ``python -m tests.crash.talk.program ORDERS``, where ORDERS is the JSON of ``Orders``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from oncue import OnCue
from oncue.conversation import Chat, Keyword, Remind, intake, settle
from oncue.conversation.flow import Flow
from oncue.conversation.intake import Intake
from oncue.conversation.outbox import Outbox
from oncue.web.asgi import web_app
from oncue.whatsapp import WhatsApp

# Where the process dies, and whether before or after what is named there.
POINTS: dict[str, tuple[Any, str, bool]] = {
    "before the POST": (WhatsApp, "send", True),
    "accepted, not recorded": (WhatsApp, "send", False),
    "recorded": (Outbox, "_record", False),
    "update not stored": (Intake, "take", True),
    "update stored, not answered": (Intake, "take", False),
    "answer not stored": (Flow, "hear", True),
    "answer stored": (Flow, "hear", False),
    "before going on": (Flow, "advance", True),
}


class Orders(msgspec.Struct):
    """What a process is to do."""

    url: str
    port: int
    whatsapp: str
    folder: str
    questions: int = 3
    reconcile_for: float = 5.0
    delay: tuple[float, float] = (0.05, 0.2)
    remind_after: float = 30.0
    point: str = ""
    nth: int = 1


def main() -> None:
    """Serve until SIGTERM."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    logging.basicConfig(level="INFO", format="%(asctime)s %(name)s %(message)s")
    if orders.point:
        arm(orders)
    app = make(orders)
    hurry(orders.reconcile_for)
    uvicorn.run(web_app(app), host="127.0.0.1", port=orders.port, log_level="warning", access_log=False)


def hurry(reconcile_for: float) -> None:
    """Watch the intake as closely for this short time in which an outcome stays open as for the usual 60 s."""
    faster = reconcile_for / 60
    intake.BEAT *= faster
    intake._GAP = settle.INTAKE_GAP = round(settle.INTAKE_GAP * faster)
    settle.SILENCE = round(settle.SILENCE * faster)


def make(orders: Orders) -> OnCue:
    """Return the application."""
    app = OnCue(orders.url)
    whatsapp = WhatsApp(
        "local-token", "100000000000001", "local-secret", "verify", url=orders.whatsapp, throughput=1000, timeout=3
    )
    channel = app.channel(whatsapp, reconcile_for=timedelta(seconds=orders.reconcile_for), quiet=None, send_rate=1000.0)

    @app.conversation("trial", channel=channel, start=Keyword("start"))
    async def trial(chat: Chat) -> None:
        for number in range(1, orders.questions + 1):
            await chat.ask(
                f"q{number}",
                f"Question {number}?",
                delay=orders.delay,
                remind=[Remind(after=orders.remind_after, text=f"Question {number}, still there?")],
            )
        await chat.say("done", "Done.", delay=orders.delay)

    return app


def arm(orders: Orders) -> None:
    """Have the process die at its point."""
    owner, name, before = POINTS[orders.point]
    original: Callable[..., Any] = getattr(owner, name)
    left = orders.nth

    async def wrapped(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        mine = left == 0
        if mine and before:
            die(orders)
        result = await original(*args, **named)
        if mine:
            die(orders)
        return result

    setattr(owner, name, wrapped)


def die(orders: Orders) -> None:
    """SIGKILL, noted just before."""
    Path(orders.folder, "died").write_text(orders.point)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
