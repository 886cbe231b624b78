"""The application: a free trial that is a conversation on WhatsApp.

Someone who starts a trial gets a question, and 2 to 10 seconds after each answer the next one. Who doesn't answer gets
one reminder. The tables below are the application's own; OnCue keeps its jobs in the same SQLite file, so that one
transaction can store an answer, cancel the reminder and schedule the next question: all of it happens, or nothing.

    python trial.py            # makes the tables
    uvicorn trial:web          # takes in the webhooks
    oncue worker trial:app     # sends
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
from base import (
    APP_SECRET,
    DATABASE_URL,
    LONGEST,
    PHONE_NUMBER_ID,
    QUESTIONS,
    RECONCILE_FOR,
    REMINDER_AFTER,
    SHORTEST,
    TOKEN,
    VERIFY_TOKEN,
    WEB_URL,
    WHATSAPP_URL,
    WHATSAPP_VERSION,
    create_tables,
    instant,
    transaction,
)
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from webhook import Message, Status, read, signed

from oncue import Discard, JobContext, Limit, OnCue, Retry, RetryAfter, Snooze

log = logging.getLogger("trial")

RANK = {"sending": 0, "accepted": 1, "sent": 2, "failed": 3, "delivered": 4, "read": 5}  # a late 'failed' loses

app = OnCue(DATABASE_URL)


# -- sending ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is marked as ``sending``. ``due`` is only there to be measured by."""

    id: str
    trial_id: str
    wa_id: str
    body: str
    attempt: int
    due: datetime

    @property
    def echo(self) -> str:
        """What WhatsApp repeats in every status of this message: how we recognise it without knowing its wamid."""
        return f"v1:{self.id}:{self.attempt}:{int(self.due.timestamp() * 1_000_000)}"


class InDoubt(Exception):
    """The message was marked as ``sending`` before, and nobody knows what became of it."""

    def __init__(self, attempt: int, since: datetime) -> None:
        super().__init__(f"attempt {attempt} was under way at {since:%H:%M:%S} and its outcome is unknown")
        self.attempt, self.since = attempt, since


@app.task(retry=Retry(max_attempts=5), timeout=30, limit=Limit(80, per=1), group_limit=Limit(1, per=6, burst=45))
async def send_question(ctx: JobContext, trial_id: str) -> None:
    """Send the question that is due, if one is. Whatever runs this, and however often: the rows decide."""
    client = ctx.resource(httpx.AsyncClient)
    try:
        draft = await asyncio.to_thread(draft_question, trial_id)
    except InDoubt as doubt:
        await wait_for_evidence(client, doubt)
        draft = await asyncio.to_thread(draft_question, trial_id, resend=doubt.attempt)
    if draft is not None:
        await post(client, draft, ctx.attempt)


@app.task(retry=Retry(max_attempts=5), timeout=30, limit=Limit(80, per=1), group_limit=Limit(1, per=6, burst=45))
async def send_reminder(ctx: JobContext, trial_id: str, question_index: int) -> None:
    """Remind of a question, if it is still unanswered. A reminder that may have gone out is never sent again."""
    try:
        draft = await asyncio.to_thread(draft_reminder, trial_id, question_index, ctx.scheduled_at)
    except InDoubt as doubt:
        raise Discard(f"the reminder may have gone out already: {doubt}") from doubt
    if draft is not None:
        await post(ctx.resource(httpx.AsyncClient), draft, ctx.attempt)


# The catch-all: whoever sets next_question_scheduled_for, be it a colleague at the SQL prompt, the question goes out.
app.source(
    table="free_trials",
    key="question-{id}",
    group="trial-{id}",
    due="next_question_scheduled_for",
    where="status = 'active'",
    task=send_question,
    trigger=True,
)


@app.provide
async def whatsapp() -> AsyncIterator[httpx.AsyncClient]:
    """One client for all jobs of a worker."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=10) as client:
        yield client


def draft_question(trial_id: str, resend: int = 0) -> Draft | None:
    """Mark the question that is due as ``sending``. None where none is; InDoubt where it was marked before."""
    with transaction() as conn:
        now = datetime.now(UTC)
        trial = conn.execute(
            "SELECT * FROM free_trials WHERE id = ? AND status = 'active' AND next_question_scheduled_for <= ?",
            (trial_id, instant(now)),
        ).fetchone()
        if trial is None:
            return None
        number = trial["question_index"]
        message_id = f"{trial_id}/question-{number}"
        attempt = mark_sending(conn, message_id, now, resend)
        due = datetime.fromisoformat(trial["next_question_scheduled_for"])
        body = f"Question {number + 1} of {len(QUESTIONS)}: {QUESTIONS[number]}"
        return Draft(message_id, trial_id, trial["wa_id"], body, attempt, due)


def draft_reminder(trial_id: str, question_index: int, due: datetime) -> Draft | None:
    """Mark the reminder as ``sending``. None where it went out or its question was answered; InDoubt as above."""
    with transaction() as conn:
        message_id = f"{trial_id}/reminder-{question_index}"
        trial = conn.execute(
            "SELECT * FROM free_trials WHERE id = ? AND status = 'active' AND question_index = ?"
            " AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.id = ? AND state <> 'sending')",
            (trial_id, question_index, message_id),
        ).fetchone()
        if trial is None:
            return None
        attempt = mark_sending(conn, message_id, datetime.now(UTC))
        body = f"Are you still there? {QUESTIONS[question_index]}"
        return Draft(message_id, trial_id, trial["wa_id"], body, attempt, due)


def mark_sending(conn: sqlite3.Connection, message_id: str, now: datetime, resend: int = 0) -> int:
    """Commit to sending before we do, so that who comes after a crash finds the mark. Returns the attempt's number."""
    marked = conn.execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    last = marked["attempt"] if marked else 0
    if marked and marked["state"] == "sending" and last != resend:
        raise InDoubt(last, datetime.fromisoformat(marked["sending_since"]))
    conn.execute(
        "INSERT OR REPLACE INTO messages (id, state, attempt, sending_since) VALUES (?, 'sending', ?, ?)",
        (message_id, last + 1, instant(now)),
    )
    return int(last) + 1


async def wait_for_evidence(client: httpx.AsyncClient, doubt: InDoubt) -> None:
    """Return when a message in doubt may be sent once more: WhatsApp had every chance to tell us that it has it.

    Its statuses carry our echo. While none has come, we wait RECONCILE_FOR, counted from when the webhook was up, since
    a webhook that was down hears nothing. Raises Snooze until then: one second at most, so that evidence which comes
    in the meantime frees the way for this person's next question.
    """
    try:
        reply = await client.get(f"{WEB_URL}/health")
        up_since = datetime.fromisoformat(reply.raise_for_status().json()["up_since"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise Snooze(1) from error
    left = max(doubt.since, up_since) + RECONCILE_FOR - datetime.now(UTC)
    if left > timedelta(0):
        raise Snooze(min(left.total_seconds(), 1.0))
    log.warning("no status in %s, sending again: %s", RECONCILE_FOR, doubt)


async def post(client: httpx.AsyncClient, draft: Draft, job_attempt: int) -> None:
    """Send it, and record what came of it."""
    body = {
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": draft.wa_id,
        "type": "text", "text": {"body": draft.body}, "biz_opaque_callback_data": draft.echo,
    }  # fmt: skip
    try:
        reply = await client.post(f"{WHATSAPP_URL}/{WHATSAPP_VERSION}/{PHONE_NUMBER_ID}/messages", json=body)
        answer = reply.json()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
        await asyncio.to_thread(unmark, draft)  # certainly not sent, so the retry is free
        raise
    except (httpx.TransportError, ValueError) as error:
        raise Snooze(1) from error  # perhaps sent: the mark stays
    if reply.status_code == 200 and answer.get("messages"):
        await asyncio.to_thread(record_accepted, draft, answer["messages"][0]["id"])
    else:
        await refused(draft, reply.status_code, answer.get("error", {}), job_attempt)


async def refused(draft: Draft, http_status: int, error: dict[str, Any], job_attempt: int) -> None:
    """Decide on the error's code. Always raises."""
    code, text = error.get("code"), error.get("message", f"HTTP {http_status} without a reason")
    if code in {None, 1, 2, 131000, 131016}:
        raise Snooze(1)  # perhaps sent: the mark stays
    await asyncio.to_thread(unmark, draft)
    if code in {4, 80007, 130429, 131056, 131057}:
        raise RetryAfter(4**job_attempt)  # too fast, for the number or for this person
    if code in {0, 3, 10, 190, 131005} or 200 <= code < 300:
        log.error("WhatsApp refuses our token, every message waits until that is put right: %s", text)
        raise Snooze(60)
    with transaction() as conn:
        conn.execute("UPDATE free_trials SET status = 'unreachable' WHERE id = ?", (draft.trial_id,))
    raise Discard(f"WhatsApp refused {draft.id}: {text}")


def unmark(draft: Draft) -> None:
    """Forget the mark of a message that was certainly not sent."""
    with transaction() as conn:
        conn.execute(
            "DELETE FROM messages WHERE id = ? AND state = 'sending' AND attempt = ?", (draft.id, draft.attempt)
        )


def record_accepted(draft: Draft, wamid: str) -> None:
    """WhatsApp answered that it has the message."""
    with transaction() as conn:
        settle(conn, draft.id, "accepted", wamid)


def settle(conn: sqlite3.Connection, message_id: str, state: str, wamid: str | None = None) -> None:
    """Note what is known of a message, from the response, a status or an answer, in whatever order they come.

    The first to tell us that WhatsApp has a question also starts the wait for its answer, in the same transaction.
    """
    message = conn.execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    if message is None or RANK[state] <= RANK[message["state"]]:
        return
    conn.execute("UPDATE messages SET state = ?, wamid = coalesce(?, wamid) WHERE id = ?", (state, wamid, message_id))
    trial_id, _, what = message_id.partition("/")
    if not what.startswith("question-"):
        return
    if state == "failed":
        conn.execute("UPDATE free_trials SET status = 'unreachable' WHERE id = ?", (trial_id,))
        app.sync.cancel(key=f"reminder-{trial_id}", connection=conn)
    elif message["state"] == "sending":
        conn.execute("UPDATE free_trials SET next_question_scheduled_for = NULL WHERE id = ?", (trial_id,))
        app.sync.schedule(
            send_reminder.call(trial_id, int(what.removeprefix("question-"))), delay=REMINDER_AFTER,
            key=f"reminder-{trial_id}", group=f"trial-{trial_id}", on_conflict="replace", connection=conn,
        )  # fmt: skip


# -- taking in --------------------------------------------------------------------------------------------------------


async def receive(request: Request) -> Response:
    """``POST /webhook``: 200 only when everything in it is stored; whatever else we say, WhatsApp tries again."""
    raw = await request.body()
    if not signed(raw, request.headers.get("x-hub-signature-256"), APP_SECRET):
        return JSONResponse({"error": "the signature does not fit the body"}, status_code=401)
    try:
        messages, statuses = read(raw)
    except msgspec.DecodeError as error:
        return JSONResponse({"error": f"not a webhook of WhatsApp: {error}"}, status_code=400)
    await run_in_threadpool(take_in, messages, statuses)
    return Response()


def take_in(messages: list[Message], statuses: list[Status]) -> None:
    """All of one POST in one transaction."""
    with transaction() as conn:
        for message in messages:
            record_answer(conn, message)
        for status in statuses:
            record_status(conn, status)


def record_answer(conn: sqlite3.Connection, message: Message) -> None:
    """Store the answer, call off the reminder, and set the next question: in the caller's transaction."""
    trial = conn.execute("SELECT * FROM free_trials WHERE wa_id = ?", (message.sender,)).fetchone()
    if trial is None:
        log.warning("left out, a message of somebody who has no trial")
        return
    trial_id, number, now = trial["id"], trial["question_index"], datetime.now(UTC)
    question = f"{trial_id}/question-{number}"
    asked = trial["status"] == "active" and conn.execute("SELECT 1 FROM messages WHERE id = ?", (question,)).fetchone()
    stored = conn.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT (wamid) DO NOTHING",
        (message.id, trial_id, number if asked else None, message.text.body, instant(now)),
    )
    if not asked or not stored.rowcount:
        return  # an afterthought, or an answer that we have already
    settle(conn, question, "read")
    app.sync.cancel(key=f"reminder-{trial_id}", connection=conn)
    if number + 1 == len(QUESTIONS):
        conn.execute("UPDATE free_trials SET status = 'finished' WHERE id = ?", (trial_id,))
        return
    schedule_question(conn, trial_id, number + 1, now + timedelta(seconds=random.uniform(SHORTEST, LONGEST)))


def schedule_question(conn: sqlite3.Connection, trial_id: str, number: int, due: datetime) -> None:
    """Set the row and the job together."""
    conn.execute(
        "UPDATE free_trials SET question_index = ?, next_question_scheduled_for = ? WHERE id = ?",
        (number, instant(due), trial_id),
    )
    app.sync.schedule(
        send_question.call(trial_id), at=due, key=f"question-{trial_id}", group=f"trial-{trial_id}",
        on_conflict="replace", connection=conn,
    )  # fmt: skip


def record_status(conn: sqlite3.Connection, status: Status) -> None:
    """Find the message by our echo, which is there before the response is, else by WhatsApp's id."""
    if status.status not in RANK:
        return
    if status.biz_opaque_callback_data:
        settle(conn, status.biz_opaque_callback_data.split(":")[1], status.status, status.id)
    elif message := conn.execute("SELECT id FROM messages WHERE wamid = ?", (status.id,)).fetchone():
        settle(conn, message["id"], status.status)


async def shake_hands(request: Request) -> Response:
    """``GET /webhook``: WhatsApp asks whether it is our wish to be called here."""
    query = request.query_params
    if query.get("hub.mode") == "subscribe" and query.get("hub.verify_token") == VERIFY_TOKEN:
        return PlainTextResponse(query.get("hub.challenge", ""))
    return PlainTextResponse("wrong verify token", status_code=403)


async def start_trial(request: Request) -> Response:
    """``POST /trials {"id", "wa_id", "name"}``: in a real application, your sign-up."""
    wish = await request.json()
    await run_in_threadpool(insert_trial, wish["id"], wish["wa_id"], wish["name"])
    return JSONResponse({"id": wish["id"]}, status_code=201)


def insert_trial(trial_id: str, wa_id: str, name: str) -> None:
    """The trial and its first question."""
    with transaction() as conn:
        conn.execute("INSERT INTO free_trials (id, wa_id, name) VALUES (?, ?, ?)", (trial_id, wa_id, name))
        schedule_question(conn, trial_id, 0, datetime.now(UTC) + timedelta(seconds=SHORTEST))


async def health(request: Request) -> Response:
    """``GET /health``: since when webhooks are heard."""
    return JSONResponse({"up_since": request.app.state.up_since})


@asynccontextmanager
async def lifespan(site: Starlette) -> AsyncIterator[None]:
    create_tables()
    async with app:
        site.state.up_since = instant(datetime.now(UTC))
        yield


web = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/webhook", shake_hands, methods=["GET"]),
        Route("/webhook", receive, methods=["POST"]),
        Route("/trials", start_trial, methods=["POST"]),
        Route("/health", health),
    ],
)

if __name__ == "__main__":
    create_tables()
