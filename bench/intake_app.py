"""The application of ``bench.intake``: who says "start" begins a conversation whose first question is an hour ahead."""

from __future__ import annotations

import os
from pathlib import Path

from oncue import OnCue
from oncue.conversation import Chat, Keyword
from oncue.whatsapp import WhatsApp

SECRET = "local-secret"
NUMBER = "100000000000001"

# So far ahead that nothing is sent: nobody listens there.
_NOBODY = "http://127.0.0.1:9"

app = OnCue(os.environ.get("BENCH_DSN") or f"sqlite:///{Path(os.environ.get('BENCH_DIR', '.')).resolve() / 'oncue.db'}")
whatsapp = WhatsApp("local-token", NUMBER, SECRET, "verify", url=_NOBODY)


@app.conversation("trial", channel=whatsapp, start=Keyword("start"))
async def trial(chat: Chat) -> None:
    await chat.ask("level", "How is your English?", choices=["new", "good"], delay=3600)
