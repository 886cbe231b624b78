"""Ten thousand people talk with one WhatsApp number at once: ``python -m bench.talk --people 10000 --store sqlite``.

The simulator of the Cloud API runs in this process, the application (web and worker) in one of its own. Everybody
writes the start word within ``--over`` seconds, answers each question, and is done. Counted at the simulator's ledger:
refusals, what was lost, doubled or out of order. Lateness of each message is parted by what the number's throughput
alone would have cost: messages that come due faster than the rate wait for their turn whoever sends them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench import tools
from bench.postgres import Postgres
from bench.process import stat_fields

QUESTIONS = 2
_APP = "bench.talk_app"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.talk", description=__doc__)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--throughput", type=float, default=1000.0, help="messages a second of the number")
    parser.add_argument("--over", type=float, default=60.0, help="seconds over which people begin")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measure(options, Path(folder)))
    text = json.dumps(found, indent=2)
    print(text)
    options.out.joinpath(f"talk-{options.store}.json").write_text(text + "\n")


async def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from oncue.whatsapp.simulator import Config, Limits, Person, Webhooks, create, serving

    people = [Person(f"49157{n:08}", answers=["yes"], pace=(2, 10)) for n in range(options.people)]
    config = Config(
        people=people, limits=replace(Limits(), throughput=options.throughput), webhooks=Webhooks(connections=32)
    )
    server = Postgres() if options.store == "postgres" else None
    try:
        url = f"sqlite:///{folder / 'jobs.db'}"
        if server is not None:
            server.create("talk")
            url = server.dsn("talk")
        simulator = create(config)
        async with serving(simulator) as whatsapp:
            return await _run(options, simulator.simulator, whatsapp, url)
    finally:
        if server is not None:
            server.close()


def _start(url: str, whatsapp: str, rate: float, port: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "TALK_URL": url, "TALK_WHATSAPP": whatsapp, "TALK_RATE": str(rate)}
    return subprocess.Popen([sys.executable, "-m", _APP, str(port)], env=env)


async def _run(options: argparse.Namespace, simulator: Any, whatsapp: str, url: str) -> dict[str, Any]:
    port = _free_port()
    application = _start(url, whatsapp, options.throughput, port)
    try:
        await _ready(f"http://127.0.0.1:{port}/health/ready")
        await simulator.webhooks.subscribe(f"http://127.0.0.1:{port}/webhooks/whatsapp", "verify")
        began = time.monotonic()
        names = [person.key for person in simulator.config.people]
        for place, name in enumerate(names):
            simulator.say(name, "start")
            await asyncio.sleep(max(0.0, began + options.over * (place + 1) / len(names) - time.monotonic()))
        while len(simulator.ledger.of("accepted")) < len(names) * (QUESTIONS + 1):
            if application.poll() is not None:
                raise RuntimeError("the application ended")
            await asyncio.sleep(0.5)
        took = time.monotonic() - began
        cpu = _cpu_s(application.pid)
    finally:
        application.terminate()
        # Not by this loop: the application ends once the simulator has read its last answers.
        await asyncio.to_thread(application.wait)
    return {
        "machine": tools.machine(), "people": options.people, "store": options.store, "throughput": options.throughput,
        "seconds": round(took, 1), "application_cpu_s": round(cpu, 1), **_judged(simulator.ledger, names),
        **_lateness(_sends(url), options.throughput / 2),
    }  # fmt: skip


async def _ready(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
    raise RuntimeError("the application did not become ready")


def _judged(ledger: Any, names: Sequence[str]) -> dict[str, Any]:
    texts: dict[str, list[str]] = defaultdict(list)
    for event in ledger.of("accepted"):
        texts[event["person"]].append(event["text"])
    wanted = [*(f"Question {n}?" for n in range(1, QUESTIONS + 1)), "Done."]
    return {
        "lost": sum(len(set(wanted) - set(texts[name])) for name in names),
        "doubled": sum(len(texts[name]) - len(set(texts[name])) for name in names),
        "out_of_order": sum(list(dict.fromkeys(texts[name])) != wanted for name in names),
        "refusals": dict(Counter(str(event["code"]) for event in ledger.of("refused"))),
    }


def _sends(url: str) -> list[tuple[int, int]]:
    """When each message was due, and when its sending began: microseconds, sorted."""
    query = "SELECT due, sending_at FROM {}oncue_message WHERE state = 'accepted' ORDER BY due, id"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as conn:
            return conn.execute(query.format("")).fetchall()
    with psycopg.connect(url) as conn:
        return [(due, at) for due, at in conn.execute(query.format("oncue."))]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _cpu_s(pid: int) -> float:
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lateness(sends: Sequence[tuple[int, int]], rate: float) -> dict[str, Any]:
    """Lateness of the sends, in ms: in all, what an ideal sender would have at this rate, and what we add to that."""
    interval, free = 1e6 / rate, 0.0
    ideal = []
    for due, _ in sends:
        free = max(float(due), free)
        ideal.append(free)
        free += interval
    actual = sorted(at for _, at in sends)
    total = [(at - due) / 1000 for due, at in sends]
    limited = [(best - due) / 1000 for best, (due, _) in zip(ideal, sends, strict=True)]
    ours = [(at - best) / 1000 for at, best in zip(actual, ideal, strict=True)]
    figures = {"lateness": total, "limited_by_whatsapp": limited, "added_by_us": ours}
    return {
        f"{name}_{what}_ms": round(value, 1)
        for name, values in figures.items()
        for what, value in (("p50", statistics.median(values)), ("p99", statistics.quantiles(values, n=100)[98]))
    }


if __name__ == "__main__":
    main()
