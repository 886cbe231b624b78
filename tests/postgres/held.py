"""Rows that an application's open transaction holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from oncue.store.postgres import PostgresStore
from tests.databases import Backend
from tests.store.kit import Bench


@contextmanager
def holding(backend: Backend, sql: str, *args: Any) -> Iterator[psycopg.Connection[Any]]:
    """An application's open transaction that did this, and is rolled back in the end."""
    with psycopg.connect(backend.url, options="-c search_path=oncue,public -c statement_timeout=10s") as conn:
        conn.execute(sql, args)
        yield conn
        conn.rollback()


def locked(backend: Backend, *ids: int) -> Any:
    return holding(backend, "SELECT id FROM oncue_job WHERE id = ANY (%s) FOR UPDATE", list(ids))


def postgres(bench: Bench) -> PostgresStore:
    assert isinstance(bench.store, PostgresStore)
    return bench.store
