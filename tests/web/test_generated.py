"""What a generator of requests makes of the API's own description: nothing that it sends finds a fault."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncue import Scheduled
from oncue.operate import Operator
from oncue.operate.tokens import ROLES
from oncue.web import web_app
from oncue.web.api import OPERATIONS
from tests.web.conftest import serving
from tests.web.operator_stage import begin, done, talking

TALKS = 20
ALLOWED = Path(__file__).with_name("schemathesis.toml")
"""Which operations may refuse what their description allows, and why."""


class Witness:
    """Notes which answers an application gives."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen = Counter[tuple[str, str, int]]()
        """How often: (method, path with {id} in it, status)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = re.sub(r"^/api/(conversations|people)/[^/]+", r"/\1/{id}", scope["path"]).removeprefix("/api")
                self.seen[scope["method"], path, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, noted if scope["type"] == "http" else send)


async def _fill(url: str) -> str:
    """Schedule some jobs, begin some conversations, and return a token that may do everything."""
    async with talking(url) as app:
        await begin(app, TALKS)
        note = app.tasks["note"]
        await app.schedule_many([Scheduled(note.call(number), delay=3600) for number in range(5)])
        return await Operator(app, "cli:test").tokens.create("all", list(ROLES))


def test_generated_requests_find_nothing_wrong_with_the_api(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    token = done(_fill(url))
    witness = Witness(web_app(talking(url), worker=False, loopback=False))
    with serving(witness) as client:
        ran = subprocess.run(
            [
                *(Path(sys.executable).parent / "schemathesis", "--config-file", ALLOWED),
                *("run", f"{client.base_url}/api/openapi.json"),
                *("--max-examples", "10", "--generation-deterministic", "--header", f"Authorization: Bearer {token}"),
                # A stream has no end to wait for: tests/web/test_stream.py reads it.
                *("--header", "X-OnCue: 1", "--exclude-path", "/events", "--no-color", "--warnings", "off"),
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # All but the description itself.
    assert f"Tested: {len(OPERATIONS) - 1}" in ran.stdout, ran.stdout
    for one in OPERATIONS:
        if one.path.startswith(("/conversations", "/people")):
            assert witness.seen[one.method, one.path, 200], f"{one.method} {one.path} was never let do its work"
