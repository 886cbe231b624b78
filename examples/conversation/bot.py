"""A trial lesson over WhatsApp, as one function: questions, reminders, and a good-bye."""

from __future__ import annotations

from oncue import OnCue
from oncue.conversation import Chat, Keyword, Remind, hours
from oncue.transport import Template
from oncue.whatsapp import WhatsApp

app = OnCue("sqlite:///bot.db")
whatsapp = WhatsApp()  # reads WHATSAPP_TOKEN and the others

QUESTIONS = ("What do you need English for?", "How many hours a week do you have?")
FOLLOW_UP = Template("trial_over", "en")


@app.conversation("trial", channel=whatsapp, start=Keyword("start"))
async def trial(chat: Chat) -> None:
    """Ask for a name and a level, then the questions, each 2 to 10 seconds after the answer before it."""
    still_there = [Remind(after=hours(2)), Remind(after=hours(22), text="Still there?")]
    name = await chat.ask("name", "Hi! What shall I call you?", delay=2, remind=still_there)
    level = await chat.ask(
        "level", f"Nice to meet you, {name}. How is your English?", choices=["new", "some", "good"], delay=(2, 10)
    )
    if level != "new":
        for number, question in enumerate(QUESTIONS):
            await chat.ask(f"q{number}", question, delay=(2, 10), remind=still_there)
    await chat.say("done", "That was your trial. See you tomorrow!", delay=2, template=FOLLOW_UP)
