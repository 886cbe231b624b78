"""With many people and jobs, what is asked for each message looks into an index, and reads no table."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from oncue.store.sql import queries
from oncue.store.sqlite.schema import MIGRATIONS

ASKED = (
    "send_facts", "begin_send", "orphans", "unread_updates", "open_inbound", "open_inbound_of", "queued_messages",
    "chat_fragments", "open_question", "statuses_unmatched", "message_id_by_ref", "message_id_by_external",
)  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_each_message_reads_no_table_of_sqlite(tmp_path: Path, name: str) -> None:
    query = queries("sqlite")[name]
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as conn:
        for migration in MIGRATIONS:
            conn.executescript(migration)
        values = dict.fromkeys(re.findall(r":(\w+)", query), "1")
        plan = [str(row[3]) for row in conn.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    # Tables have aliases of one letter; "SCAN CONSTANT ROW", and what a subquery made, cost nothing.
    aliases = set(re.findall(r"(?:FROM|JOIN) oncue_\w+ AS (\w+)", query)) | set(
        re.findall(r"(?:FROM|JOIN) (oncue_\w+)", query)
    )
    read = [line for line in plan if line.startswith("SCAN") and line.split()[1] in aliases and "INDEX" not in line]
    assert not read, plan
    assert not [line for line in plan if line.endswith("PRIMARY KEY (channel=?)")], plan
