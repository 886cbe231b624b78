"""How soon an update of WhatsApp has its 200: ``python -m bench.intake --store sqlite`` (or ``postgres``).

``oncue serve`` takes updates on loopback and its worker, in the same process, handles them meanwhile: everybody who
writes begins a conversation. Updates come at their times whether or not the last one is answered: first with one
message each, then with many messages and statuses each. In the end the database is asked whether all of it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench import tools
from bench.intake_app import NUMBER, SECRET
from bench.postgres import Postgres
from bench.process import Program, wait_for
from bench.work import percentile
from oncue.whatsapp.signature import HEADER, sign

PATH = "/webhooks/whatsapp"
_CAP_S = 120.0
_BAR_MS = 20.0
_COUNTS = {
    "updates": "SELECT count(*) FROM {}oncue_update",
    "messages": "SELECT count(*) FROM {}oncue_inbound",
    "handled": "SELECT count(*) FROM {}oncue_inbound WHERE handled_at IS NOT NULL",
    "statuses": "SELECT count(*) FROM {}oncue_status",
    "conversations": "SELECT count(*) FROM {}oncue_chat WHERE state = 'active' AND step = 'level'",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; ``batch``: messages, and as many statuses, of an update with many."""

    singles: int
    batches: int
    batch: int
    per_s: float


def main() -> int:
    """Measure, and write what was found as JSON and as a table; 1 if anything is missing in the database."""
    parser = argparse.ArgumentParser(prog="python -m bench.intake", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--singles", type=int, default=1000, help="updates with one message")
    parser.add_argument("--batches", type=int, default=200, help="updates with many")
    parser.add_argument("--batch", type=int, default=10, help="messages, and as many statuses, of one of these")
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the result")
    options = parser.parse_args()
    sizes = Sizes(options.singles, options.batches, options.batch, options.rate)
    machine = tools.machine()
    found = {"machine": machine, "store": options.store, **measure(options.store, sizes)}
    text = markdown(found)
    options.out.mkdir(parents=True, exist_ok=True)
    result = options.out / f"intake-{options.store}"
    result.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    result.with_suffix(".md").write_text(text)
    print(text)
    return 0 if found["found"] == found["wanted"] else 1


def measure(store: str, sizes: Sizes) -> dict[str, Any]:
    """Start what takes updates, send them, and compare what was sent with what is there."""
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = {"BENCH_DIR": str(folder)}
        if store == "postgres":
            server = Postgres()
            stack.callback(server.close)
            server.create("intake")
            environment["BENCH_DSN"] = server.dsn("intake")
        serve = _serve(folder, environment)
        stack.callback(serve.stop)
        url = serve.says(r"serving (http://\S+)")[1] + PATH
        cpu = serve.cpu_seconds()
        kinds = asyncio.run(_send(url, sizes))
        messages = sizes.singles + sizes.batches * sizes.batch
        wanted = {"updates": sizes.singles + sizes.batches, "statuses": sizes.batches * sizes.batch}
        wanted |= dict.fromkeys(("messages", "handled", "conversations"), messages)
        database = environment.get("BENCH_DSN") or folder / "oncue.db"
        wait_for(lambda: _counts(database) == wanted, [serve], _CAP_S)
        cpu = serve.cpu_seconds() - cpu
        return {
            "messages_per_s": sizes.per_s,
            "batch": sizes.batch,
            "kinds": kinds,
            "wanted": wanted,
            "found": _counts(database),
            "serve_cpu_ms_per_message": round(cpu / messages * 1000, 2),
        }


def _serve(folder: Path, environment: dict[str, str]) -> Program:
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "CRON_SECRET")
    }
    command = [sys.executable, "-m", "oncue", "serve", "bench.intake_app:app", "--port", "0", "--log-level", "warning"]
    return Program(command, kept | environment | {"PYTHONPATH": str(tools.ROOT)}, folder / "serve.log", tools.ROOT)


async def _send(url: str, sizes: Sizes) -> dict[str, Any]:
    people = count(1)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60.0, trust_env=False) as http:
        await http.post(url, content=b"{}")  # refused, as nobody signed it: the connection is there
        plan = {"single": (sizes.singles, 1, 0), "batch": (sizes.batches, sizes.batch, sizes.batch)}
        found = {}
        for kind, (updates, messages, statuses) in plan.items():
            every = messages / sizes.per_s
            began = time.monotonic()
            posts = []
            for place in range(updates):
                await asyncio.sleep(began + every * place - time.monotonic())
                raw = _update([next(people) for _ in range(messages)], statuses)
                posts.append(asyncio.create_task(_post(http, url, raw)))
            found[kind] = _judged(await asyncio.gather(*posts))
        return found


async def _post(http: httpx.AsyncClient, url: str, raw: bytes) -> tuple[int, float]:
    """Return the status, and the milliseconds until it was there."""
    headers = {"content-type": "application/json", HEADER: sign(SECRET.encode(), raw)}
    began = time.perf_counter()
    answer = await http.post(url, content=raw, headers=headers)
    return answer.status_code, (time.perf_counter() - began) * 1000


def _judged(answers: Sequence[tuple[int, float]]) -> dict[str, Any]:
    spans = sorted(span for _, span in answers)
    figures = {"p50_ms": percentile(spans, 0.5), "p99_ms": percentile(spans, 0.99), "max_ms": spans[-1]}
    answered = {str(status): n for status, n in Counter(status for status, _ in answers).items()}
    return {"answers": answered} | {name: round(value, 2) for name, value in figures.items()}


def _update(people: Sequence[int], statuses: int) -> bytes:
    """An update as Meta builds it: what these people write now, and statuses of messages that others sent them."""
    now = str(int(time.time()))
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550100000", "phone_number_id": NUMBER},
        "contacts": [{"profile": {"name": f"Person {n}"}, "wa_id": f"49157{n:08}"} for n in people],
        "messages": [
            {"from": f"49157{n:08}", "id": f"wamid.IN{n}", "timestamp": now, "type": "text", "text": {"body": "start"}}
            for n in people
        ],
        "statuses": [
            {"id": f"wamid.OUT{n}", "status": "delivered", "timestamp": now, "recipient_id": f"49157{n:08}"}
            for n in people[:statuses]
        ],
    }
    change = {"field": "messages", "value": {name: part for name, part in value.items() if part}}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "2", "changes": [change]}]}).encode()


def _counts(database: str | Path) -> dict[str, int]:
    if isinstance(database, Path):
        with closing(sqlite3.connect(database)) as db:
            return {name: db.execute(query.format("")).fetchone()[0] for name, query in _COUNTS.items()}
    with psycopg.connect(database) as pg:
        rows = {name: pg.execute(query.format("oncue.").encode()).fetchone() for name, query in _COUNTS.items()}
    return {name: row[0] for name, row in rows.items() if row}


def markdown(found: dict[str, Any]) -> str:
    """The table, and whether anything is missing."""
    lines = [f"# How soon an update of WhatsApp has its 200, on {found['store']}", ""]
    lines += [f"- {name}: {value}" for name, value in found["machine"].items()]
    lines += [f"- {found['messages_per_s']:g} messages a second, each of which begins a conversation"]
    lines += [f"- CPU of `oncue serve`: {found['serve_cpu_ms_per_message']} ms a message with all that follows from it"]
    lines += [
        "",
        "| update | how many | answers | p50 ms | p99 ms | max ms | p50 < 20 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"single": "one message", "batch": f"{found['batch']} messages, {found['batch']} statuses"}
    for kind, figures in found["kinds"].items():
        answers = ", ".join(f"{status}: {n}" for status, n in figures["answers"].items())
        met = "yes" if figures["p50_ms"] < _BAR_MS else "**no**"
        spans = [f"{figures[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")]
        lines.append(f"| {' | '.join([names[kind], str(sum(figures['answers'].values())), answers, *spans, met])} |")
    lines += ["", "| in the database | sent | found |", "|---|---|---|"]
    lines += [f"| {name} | {wanted} | {found['found'][name]} |" for name, wanted in found["wanted"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every process is ended
    raise SystemExit(main())
