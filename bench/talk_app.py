"""The application of ``bench.talk``: a conversation over a WhatsApp number, web and worker in one process."""

from __future__ import annotations

import os
import sys

import uvicorn

from bench.talk import QUESTIONS
from oncue import OnCue
from oncue.conversation import Chat, Keyword, Remind, hours
from oncue.web.asgi import web_app
from oncue.whatsapp import WhatsApp

app = OnCue(os.environ["TALK_URL"])
whatsapp = WhatsApp(
    "local-token", "100000000000001", "local-secret", "verify",
    url=os.environ["TALK_WHATSAPP"], throughput=float(os.environ["TALK_RATE"]),
)  # fmt: skip


@app.conversation("trial", channel=whatsapp, start=Keyword("start"))
async def trial(chat: Chat) -> None:
    for number in range(1, QUESTIONS + 1):
        await chat.ask(f"q{number}", f"Question {number}?", delay=(2, 10), remind=[Remind(after=hours(2))])
    await chat.say("done", "Done.", delay=2)


if __name__ == "__main__":
    uvicorn.run(web_app(app), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
