"""What the documentation shows is so: every block runs, every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.snippets import ROOT, BadPage, pages, read
from tests.nodejs import MISSING

_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|<(?:img|a)[^>]+(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.M)
_CODE = re.compile(r"^ *(`{3,}).*?^ *\1$|`[^`\n]*`", re.M | re.S)


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def shows_something(page: Path) -> bool:
    try:
        return bool(read(page))
    except BadPage:
        # Its own test says why; the other pages' tests must not go down with it.
        return True


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [p for p in pages() if shows_something(p)], ids=title)
def test_what_the_page_shows_works(page: Path) -> None:
    if MISSING and any(block.verb == "node" for block in read(page)):
        pytest.skip(f"no {MISSING} here: what the page shows of Node is not run")
    command = [sys.executable, "-m", "tests.docs.page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the forges make them: lower case, punctuation dropped, spaces to hyphens."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(re.sub(r"^ *(`{3,}).*?^ *\1$", "", page.read_text(), flags=re.M | re.S)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def broken_links(page: Path) -> list[str]:
    broken = []
    for match in _LINK.finditer(_CODE.sub("", page.read_text())):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / unquote(name)).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", pages(), ids=title)
def test_the_links_of_the_page_lead_somewhere(page: Path) -> None:
    assert not broken_links(page)


def missing_proofs(page: Path) -> list[str]:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", tests))
    return [name for name in re.findall(r"`(test_\w+)`", page.read_text()) if name not in defined]


@pytest.mark.parametrize("page", pages(), ids=title)
def test_the_tests_that_the_page_names_as_proof_exist(page: Path) -> None:
    assert not missing_proofs(page)
