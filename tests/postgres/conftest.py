"""Empty databases on the oldest and the newest PostgreSQL, and roles that may do little."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from oncue.store import open_store
from tests import pg
from tests.databases import NEWEST, POSTGRES, Backend, database
from tests.store.kit import Bench, HandClock

PASSWORD = "only-for-tests"


@dataclass(frozen=True, slots=True)
class Base:
    """A database as its superuser sees it."""

    name: str
    url: str

    def run(self, text: str) -> None:
        """Run statements, each of which commits."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(text)

    def rows(self, text: str) -> list[tuple[object, ...]]:
        """Return the rows of a statement."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            found: list[tuple[object, ...]] = conn.execute(text).fetchall()
            return found

    def value(self, text: str) -> object:
        """Return the first column of the first row."""
        return self.rows(text)[0][0]

    def url_of(self, role: str) -> str:
        """The URL by which a role of these tests connects."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()


# For commands and waits that are the same on every version.
on_the_newest = pytest.mark.parametrize("base", [int(kind.removeprefix("postgres")) for kind in NEWEST], indirect=True)


@pytest.fixture(params=sorted({pg.OLDEST, pg.NEWEST}))
def base(request: pytest.FixtureRequest) -> Iterator[Base]:
    with pg.running(request.param).database() as made:
        yield Base(made.name, made.dsn)


@pytest.fixture
def role(base: Base) -> Iterator[Callable[[], str]]:
    """Makes roles that may do nothing yet, and removes them with all that they own."""
    made: list[str] = []

    def make() -> str:
        made.append(f"oncue_role_{uuid.uuid4().hex[:12]}")
        base.run(f"CREATE ROLE {made[-1]} LOGIN PASSWORD '{PASSWORD}'")
        return made[-1]

    yield make
    for name in made:
        base.run(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture(params=POSTGRES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def bench(backend: Backend) -> AsyncIterator[Bench]:
    clock = HandClock()
    store = open_store(backend.url, clock)
    await store.open()
    made = Bench(store, clock)
    yield made
    for life in made.lives.values():
        life.release()
    await store.close()
