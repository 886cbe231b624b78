"""The application's settings, its own tables, and how it opens a transaction on them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

QUESTIONS = (
    "How did you hear about us?",
    "What would you like to get done first?",
    "How often would you use it?",
    "Who else should try it with you?",
)

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///trial.db")
WHATSAPP_URL = os.environ.get("WHATSAPP_URL", "http://127.0.0.1:8081")  # the stand-in
WHATSAPP_VERSION = os.environ.get("WHATSAPP_VERSION", "v26.0")
PHONE_NUMBER_ID = os.environ.get("WHATSAPP_PHONE_NUMBER_ID", "1")
TOKEN = os.environ.get("WHATSAPP_TOKEN", "local-token")
APP_SECRET = os.environ.get("WHATSAPP_APP_SECRET", "local-secret")
VERIFY_TOKEN = os.environ.get("WHATSAPP_VERIFY_TOKEN", "local-verify-token")
WEB_URL = os.environ.get("TRIAL_WEB_URL", "http://127.0.0.1:8000")  # where `uvicorn trial:web` listens
SHORTEST, LONGEST = (
    float(s) for s in os.environ.get("TRIAL_PAUSE", "2 10").split()
)  # from an answer to the next question
REMINDER_AFTER = timedelta(seconds=float(os.environ.get("TRIAL_REMINDER_AFTER", "7200")))
RECONCILE_FOR = timedelta(seconds=float(os.environ.get("TRIAL_RECONCILE_FOR", "60")))

TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS free_trials (
    id                          TEXT PRIMARY KEY,
    wa_id                       TEXT NOT NULL UNIQUE,
    name                        TEXT NOT NULL,
    status                      TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'finished', 'unreachable')),
    question_index              INTEGER NOT NULL DEFAULT 0,  -- the question that comes next, or waits for its answer
    next_question_scheduled_for TEXT                         -- UTC; NULL while we wait for an answer
) STRICT;
CREATE TABLE IF NOT EXISTS messages (
    id            TEXT PRIMARY KEY,           -- 't-1/question-0': so no message is written twice
    state         TEXT NOT NULL CHECK (state IN ('sending', 'accepted', 'sent', 'failed', 'delivered', 'read')),
    attempt       INTEGER NOT NULL,
    sending_since TEXT NOT NULL,
    wamid         TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    wamid          TEXT PRIMARY KEY,          -- so an answer that is delivered twice counts once
    trial_id       TEXT NOT NULL REFERENCES free_trials,
    question_index INTEGER,                   -- NULL: said without being asked
    body           TEXT NOT NULL,
    received_at    TEXT NOT NULL,
    UNIQUE (trial_id, question_index)
) STRICT;
"""


def path() -> str:
    """The SQLite file that the application and OnCue share."""
    return DATABASE_URL.removeprefix("sqlite:///")


def create_tables() -> None:
    """Make what is missing."""
    conn = sqlite3.connect(path())
    conn.executescript(TABLES)
    conn.close()


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """The application's own connection, as any application has one: commit at the end, or nothing at all."""
    conn = sqlite3.connect(path(), timeout=10, isolation_level=None)
    conn.row_factory = sqlite3.Row
    try:
        conn.execute("BEGIN IMMEDIATE")
        yield conn
        conn.execute("COMMIT")
    except BaseException:
        conn.rollback()  # closing is not enough: a cursor that a traceback keeps alive keeps the transaction open
        raise
    finally:
        conn.close()


def instant(moment: datetime) -> str:
    """A moment as the tables hold it: UTC, of fixed width, so that text compares as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
