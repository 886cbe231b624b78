"""A process that is stopped in the middle of a claim holds the others up for two seconds at most."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests import pg
from tests.databases import database
from tests.postgres.failure import Ledger, application, note, rows, until_rows, working

ROOT = Path(__file__).parents[2]
IN_TRANSACTION = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"


async def test_a_process_that_is_stopped_with_the_lock_in_hand_loses_it_and_what_it_claimed(tmp_path: Path) -> None:
    with database(f"postgres{pg.NEWEST}", tmp_path) as made:
        ledger = Ledger()
        app = application(made.url, ledger, "other")
        async with app:
            command = [sys.executable, "-m", "tests.postgres.stopped", made.url]
            child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            assert child.stdout is not None
            try:
                assert await child.stdout.readline() == b"ready\n"
                first = await app.schedule(note(app, 1), group="g")
                await asyncio.to_thread(os.waitpid, child.pid, os.WUNTRACED)
                assert rows(made.url, IN_TRANSACTION) != []
                async with working(app):
                    # The server ends the stopped one's transaction, and its claim was never made.
                    assert await first.result(timeout=20) == 1
                assert ledger.lines == [("ran", "other", 1, 1)]
                os.kill(child.pid, signal.SIGCONT)
                last = await app.schedule(note(app, 0), group="g")
                assert await last.result(timeout=20) == 0
                assert await child.stdout.read() == b"ran stopped 0 1\n"
                assert await child.wait() == 0
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        await until_rows(made.url, "SELECT count(*) FROM oncue_worker", wanted=lambda found: found == [(0,)])
