"""A simulator in the test's own process, and the application beside it that is killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from oncue.conversation import Conversations
from oncue.whatsapp.simulator import App, Config, Delays, Fault, Person, Webhooks, create, serving
from tests.crash.talk.program import Orders, make
from tests.crash.talk.verdict import Verdict, judge

ROOT = Path(__file__).resolve().parents[3]
_LOOK = 0.02
_OPERATED_EVERY = 0.5
_CHATTER_EVERY = 0.3


def people(count: int, **more: Any) -> list[Person]:
    """Return people who answer each question soon."""
    options: dict[str, Any] = {"answers": ["yes"], "pace": (0.05, 0.3)} | more
    return [Person(f"4915700{n:06}", f"P{n}", **options) for n in range(count)]


class Talk:
    """The simulator's program, its people, and the application's process."""

    def __init__(self, simulator: App, orders: Orders, folder: Path, everybody: Sequence[Person]) -> None:
        self.app, self.simulator, self.orders, self.folder = simulator, simulator.simulator, orders, folder
        self.everybody = everybody
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.orders.port}"

    async def start(self, point: str = "", nth: int = 1) -> None:
        """Start the application; at a named point it kills itself."""
        self._launch(msgspec.structs.replace(self.orders, point=point, nth=nth))
        async with httpx.AsyncClient(trust_env=False) as client:
            while self.alive:
                try:
                    if (await client.get(f"{self.url}/health/ready")).status_code == 200:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(_LOOK)

    def _launch(self, orders: Orders) -> None:
        self.lives += 1
        command = [sys.executable, "-m", "tests.crash.talk.program", msgspec.json.encode(orders).decode()]
        with (self.folder / f"log-{self.lives}").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def dies(self, point: str) -> None:
        """Wait until the application has killed itself at this point."""
        assert self.process is not None
        await self.until(lambda: not self.alive)
        assert self.process.returncode == -signal.SIGKILL, self.logs()
        assert (self.folder / "died").read_text() == point

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for what shows without an event; the test's own timeout ends a wait in vain."""
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    async def subscribe(self) -> None:
        await self.simulator.webhooks.subscribe(f"{self.url}/webhooks/whatsapp", "verify")

    def begin(self) -> None:
        """Everybody writes the word that starts the conversation."""
        for person in self.everybody:
            self.simulator.say(person.key, "start")

    async def accepted(self, count: int) -> None:
        """Wait until the simulator has accepted so many messages."""
        async for events in self.simulator.ledger.follow(0):
            count -= sum(event["event"] == "accepted" for event in events)
            if count <= 0:
                return

    async def finished(self) -> None:
        """Wait until everybody has the last message."""
        left = {person.key for person in self.everybody}
        async for events in self.simulator.ledger.follow(0):
            left -= {event["person"] for event in events if event["event"] == "accepted" and event["text"] == "Done."}
            if not left:
                return

    @asynccontextmanager
    async def operated(self) -> AsyncIterator[Counter[str]]:
        """Have an operator resume what is parked, as a question is whose outcome was unknown a second time.

        Yields how often that was, by the reason.
        """
        resumed: Counter[str] = Counter()
        app = make(self.orders)

        async def operate() -> None:
            conversations = Conversations(app)
            while True:
                for chat in await conversations.list(state="parked"):
                    await conversations.resume(chat.id)
                    resumed[(chat.reason or "").partition(": ")[2]] += 1
                await asyncio.sleep(_OPERATED_EVERY)

        async with app:
            task = asyncio.create_task(operate())
            try:
                yield resumed
            finally:
                task.cancel()
                await asyncio.wait({task})

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Have somebody else write all the time: where nothing at all is heard, a lost status can't be told from an
        intake that no update reaches, and messages of unknown outcome wait."""
        other = Person("4915799999999", "Somebody else")
        self.simulator.add(other)

        async def chatter() -> None:
            while True:
                self.simulator.say(other.key, "Hello")
                await asyncio.sleep(_CHATTER_EVERY)

        task = asyncio.create_task(chatter())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    def verdict(self) -> Verdict:
        return judge(self.simulator.ledger.events, [one.key for one in self.everybody], self.orders.questions)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.folder.glob("log-*")))


@asynccontextmanager
async def talk(
    folder: Path,
    url: str,
    everybody: Sequence[Person],
    *,
    webhooks: Webhooks | None = None,
    faults: Sequence[Fault] = (),
    **orders: Any,
) -> AsyncIterator[Talk]:
    """Serve a simulator for these people; the application is started by the test."""
    chaos = webhooks or Webhooks(retry_first=0.2, retry_most=1.0)
    config = Config(
        people=everybody, delays=Delays.short(), webhooks=chaos, faults=faults,
        ledger=folder / "ledger.jsonl", limits=replace(Config().limits, throughput=None, pair_every=None),
    )  # fmt: skip
    simulator = create(config)
    async with serving(simulator) as whatsapp:
        made = Talk(simulator, Orders(url, _free_port(), whatsapp, str(folder), **orders), folder, everybody)
        try:
            yield made
        except BaseException as error:
            error.add_note(made.logs())
            raise
        finally:
            if made.process is not None:
                if made.alive:
                    os.kill(made.process.pid, signal.SIGKILL)
                made.process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
