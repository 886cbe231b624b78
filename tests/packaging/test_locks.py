"""The lock files hold hashes and no address, and cover what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
ASKED = {
    "demo": CORE + EXTRAS["web"] + EXTRAS["whatsapp"],
    "dev": CORE + EXTRAS["web"] + EXTRAS["whatsapp"] + EXTRAS["metrics"] + EXTRAS["postgres"] + EXTRAS["dev"],
}


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_pins_what_the_project_asks_for(lock: str) -> None:
    pinned = pins(lock)
    for text in ASKED[lock]:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is missing from requirements/{lock}.txt: run `make lock`"
        assert requirement.specifier.contains(version), f"{text} is pinned to {version}: run `make lock`"


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_holds_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert "://" not in text
    assert "index" not in re.sub(r"^\s*# via.*$", "", text, flags=re.M)
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert len(entries) == len(pins(lock))
    assert all("--hash=sha256:" in entry for entry in entries)
