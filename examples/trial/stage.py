"""The processes that the demo and the tests play on: the stand-in, the application's web side, and its worker."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import httpx
from people import Person

HERE = Path(__file__).resolve().parent


class StageFailed(Exception):
    """A process did not start, or ended by itself."""


class Stage:
    """The three processes, their settings and their logs."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.ledger, self.database = folder, folder / "ledger.jsonl", folder / "trial.db"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        theirs = ("REDIS_URL", "CRON_SECRET", "WHATSAPP_", "TRIAL_", "STANDIN_", "ONCUE_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        self.env |= {
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "NO_PROXY": "127.0.0.1",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "STANDIN_LEDGER": str(self.ledger),
            **settings,
        }
        self.whatsapp = self.web = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, *command: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """Start ``python -m COMMAND``, which writes its log into the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=self.env, cwd=self.folder, stdout=log, stderr=log, pass_fds=fds
            )
        self._processes[name] = process
        return process

    def serve(self, name: str, target: str, *options: str) -> str:
        """Serve an ASGI program. Its socket is ours, so that the address is known, and is listening, at once."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            fd = listener.fileno()
            self.start(name, "uvicorn", target, *options, "--fd", str(fd), "--log-level", "warning", fds=(fd,))
        return url

    def open(self, people: Iterable[Person]) -> None:
        """Start the stand-in and the web side, let them shake hands, and introduce the people. No worker yet."""
        self.whatsapp = self.env["WHATSAPP_URL"] = self.serve("stand-in", "standin:from_env", "--factory")
        self.post(f"{self.whatsapp}/_sim/people", [asdict(person) for person in people])
        self.start_web()

    def start_web(self) -> None:
        """Start the web side, at an address of its own, and let WhatsApp know it."""
        self.web = self.env["TRIAL_WEB_URL"] = self.serve("web", "trial:web")
        self.post(f"{self.whatsapp}/_sim/webhook", {"url": f"{self.web}/webhook", "verify_token": "local-verify-token"})

    def begin(self, trial_id: str, person: Person) -> None:
        """Sign a person up for a trial."""
        self.post(f"{self.web}/trials", {"id": trial_id, "wa_id": person.wa_id, "name": person.name})

    def post(self, url: str, body: object) -> None:
        """POST JSON to one of our own. Raises StageFailed where it says no."""
        try:
            httpx.post(url, json=body, timeout=20, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise StageFailed(f"{error}\n{self.logs()}") from error

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start the worker and wait until it works."""
        before = self.workers()
        worker = self.start("worker", "oncue", "worker", "trial:app")
        self.until(lambda: bool(self.workers() - before), "the worker to start")
        return worker

    def workers(self) -> set[str]:
        """The workers that have reported for work."""
        return {str(row[0]) for row in self.ask("SELECT id FROM oncue_worker")}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Read from the application's database."""
        conn = sqlite3.connect(self.database)
        try:
            return conn.execute(sql).fetchall()
        finally:
            conn.close()

    def write(self, sql: str, *values: object) -> None:
        """Write to the application's database behind its back."""
        conn = sqlite3.connect(self.database, timeout=10)
        with conn:
            conn.execute(sql, values)
        conn.close()

    def in_flight(self) -> int:
        """How many questions a job has marked as ``sending`` and has heard nothing of.

        0 while a reminder is: one that is in doubt after a crash is given up, and then a person who waits for it
        never gets to the end of the conversation, as intended.
        """
        counted = (
            "SELECT total(id LIKE '%/question-%'), total(id LIKE '%/reminder-%') FROM messages WHERE state = 'sending'"
        )
        ((questions, reminders),) = self.ask(counted)
        return 0 if reminders else int(questions)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
        """Wait for something. Raises StageFailed where it doesn't come, or a process ends meanwhile."""
        end = time.monotonic() + seconds
        while not true():
            self.check()
            if time.monotonic() > end:
                raise StageFailed(f"waited {seconds:.0f} s for {what}, in vain\n{self.logs()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise StageFailed where a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise StageFailed(f"{name} ended with exit code {process.returncode}\n{self.logs()}")

    def logs(self) -> str:
        """The last lines of every log."""
        return "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in sorted(self.folder.glob("*.log")))

    def kill(self, name: str) -> None:
        """SIGKILL: no handler, no goodbye, no flush."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
