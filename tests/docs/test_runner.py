"""The page runner notices what isn't so: a test of the documentation that could not fail would be worth nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, BadPage, read
from tests.docs.test_pages import anchors, broken_links, missing_proofs


def result(page: Path, text: str) -> tuple[int, str]:
    page.write_text(text)
    command = [sys.executable, "-m", "tests.docs.page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


GOOD = """
# A page
<!-- snippet: setup
import asyncio, datetime
x = 20
-->
```python
async def more(n: int) -> int:
    return n + 2
y = await more(x)
assert f"{datetime.date(2026, 3, 27):%a}" == "Fri"
```
Then:
<!-- snippet: file tool.py -->
```python
import time
print("up and ready", flush=True)
time.sleep(60)
```
<!-- snippet: starts "and ready" -->
```bash
exec python tool.py
```
<!-- snippet: starts "stay" -->
```bash
trap 'echo gone > gone; exit 0' TERM; echo stay; sleep 60 & wait
```
<!-- snippet: stop -->
```bash
test -e gone
```
```console
$ echo one two
one ...
$ test -e tool.py
```
```python no-run it would need a phone
call(x)
```
```python
assert y == 22 and asyncio
```
"""


def test_a_good_page_runs_in_order_with_one_namespace(tmp_path: Path) -> None:
    code, out = result(tmp_path / "p.md", GOOD)
    assert code == 0, out
    assert "8 blocks run" in out


POSTGRES = """
<!-- snippet: postgres -->
```bash
psql "$DATABASE_URL" -c 'CREATE TABLE mine ()'
```
```python
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)
```
<!-- snippet: postgres -->
```bash
! psql "$DATABASE_URL" -c 'SELECT * FROM mine'
```
"""


@pytest.mark.timeout(100)
def test_a_page_is_given_new_databases_of_a_real_server(tmp_path: Path) -> None:
    code, out = result(tmp_path / "p.md", POSTGRES)
    assert code == 0, out
    assert "3 blocks run" in out


def test_the_settings_of_whoever_runs_the_tests_reach_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebodys")
    text = """
```bash
test -z "${DATABASE_URL:-}"
```
```python
import os
assert "DATABASE_URL" not in os.environ
```
"""
    code, out = result(tmp_path / "p.md", text)
    assert code == 0, out


def test_where_a_page_fails_it_shows_what_its_started_commands_said(tmp_path: Path) -> None:
    text = """
<!-- snippet: starts "ready" -->
```bash
echo ready; echo the reason; touch done; exec sleep 60
```
```bash
until test -e done; do :; done; false
```
"""
    code, out = result(tmp_path / "p.md", text)
    assert code == 1
    assert "said:\nready\nthe reason" in out


def test_a_port_that_a_page_names_need_not_be_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"""
<!-- snippet: starts "HTTP" -->
```bash
set -- --port {port}
exec python -m http.server --bind 127.0.0.1 "$2"
```
```bash
curl -sf http://127.0.0.1:{port}/ | grep Directory
```
"""
        code, out = result(tmp_path / "p.md", text)
    assert code == 0, out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\nassert 1 == 2\n```", "p.md"),
        ("\n\n```python\nawait nothing()\n```", "line 4"),
        ("```python no-run a reason here\nthis is no Python\n```", "SyntaxError"),
        ("```bash\nfalse | true\n```", "code 1"),
        ("```console\n$ echo one\ntwo\n```", "the page shows"),
        ("```console\necho one\n```", "starts with a command"),
        ('<!-- snippet: starts "ready" -->\n```bash\necho no\n```', "never printed 'ready', but:\nno"),
        ('<!-- snippet: starts "ready" -->\n```bash\ntrap "exit 3" TERM; echo ready; sleep 60 & wait\n```', "code 3"),
    ],
)
def test_what_is_not_so_fails(text: str, said: str, tmp_path: Path) -> None:
    code, out = result(tmp_path / "p.md", text + "\n")
    assert code == 1
    assert said in out


@pytest.mark.parametrize(
    "text",
    [
        "```\nx\n```",
        "```sh\nx\n```",
        "```python\nx",
        "```python no-run\nx\n```",
        "<!-- snippet: skip -->",
        "<!-- snippet: setup\nx",
    ],
)
def test_a_block_cannot_hide(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text(text + "\n")
    with pytest.raises(BadPage, match="p.md:1"):
        read(tmp_path / "p.md")


def test_links_and_anchors(tmp_path: Path) -> None:
    page, other = tmp_path / "p.md", tmp_path / "o.md"
    other.write_text("# One, two\n## One two\n```text\n# no heading\n```\n")
    assert anchors(other) == {"one-two", "one-two-1"}
    page.write_text(
        "[a](o.md#one-two) [b](o.md#three) [c](gone.md) `[d](gone.md)` [e](https://example.org) [f](#none)\n"
    )
    assert broken_links(page) == ["o.md#three", "gone.md", "#none"]


def test_a_proof_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("`test_links_and_anchors` `test_nobody_wrote_this`\n")
    assert missing_proofs(page) == ["test_nobody_wrote_this"]
