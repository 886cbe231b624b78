"""What a generator of requests makes of the API's own description: nothing that it sends finds a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from oncue import Scheduled
from oncue.operate import Operator
from oncue.operate.tokens import ROLES
from oncue.web import web_app
from oncue.web.api import OPERATIONS
from tests.web.conftest import serving
from tests.web.operator_stage import declared, done


async def _fill(url: str) -> str:
    """Schedule some jobs, and return a token that may do everything."""
    async with declared(url) as app:
        note = app.tasks["note"]
        await app.schedule_many([Scheduled(note.call(number), delay=3600) for number in range(5)])
        return await Operator(app, "cli:test").tokens.create("all", list(ROLES))


def test_generated_requests_find_nothing_wrong_with_the_api(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    token = done(_fill(url))
    with serving(web_app(declared(url), worker=False, loopback=False)) as client:
        ran = subprocess.run(
            [
                *(Path(sys.executable).parent / "schemathesis", "run", f"{client.base_url}/api/openapi.json"),
                *("--max-examples", "10", "--generation-deterministic", "--header", f"Authorization: Bearer {token}"),
                # Not every rule can be told in a schema, such as names that are printable: more may be refused.
                *("--exclude-checks", "positive_data_acceptance"),
                # A stream has no end to wait for: tests/web/test_stream.py reads it.
                *("--header", "X-OnCue: 1", "--exclude-path", "/events", "--no-color", "--warnings", "off"),
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # All but the description itself.
    assert f"Tested: {len(OPERATIONS) - 1}" in ran.stdout, ran.stdout
