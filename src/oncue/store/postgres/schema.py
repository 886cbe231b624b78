"""Creating and migrating OnCue's tables: in steps, each one transaction under an advisory lock.

Workers run meanwhile. So a step keeps two rules:

- Processes that know the version before it go on with what it leaves: it adds tables, columns with a constant default,
  indexes; what it makes useless is removed by a later step. ``oldest`` says from which version on.
- It needs no lock on ``oncue_job`` for longer than a moment: no rewrite of the table, constraints as NOT VALID and
  validated by the next step. It gives up waiting for a lock after a second, lets those who queued behind it pass, and
  tries again.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import asyncpg

from oncue.dsn import PostgresUrl
from oncue.errors import NoDatabase, SchemaTooNew, SchemaTooOld, StoreBusy, StoreError
from oncue.store.postgres.connection import Connection, Pool
from oncue.store.postgres.run import qualified
from oncue.store.sql import text
from oncue.store.views import SchemaView
from oncue.words import counted


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the SQL that takes it and that takes it back, and the oldest version that goes on working after it."""

    up: str
    down: str
    oldest: int


def _of(name: str, oldest: int) -> Migration:
    up, down = (text("postgres", f"schema/{name}{way}.sql") for way in ("", "_down"))
    return Migration(up, down, oldest)


MIGRATIONS = (
    _of("001_jobs", oldest=1),
    _of("002_adopted", oldest=1),
    _of("003_conversations", oldest=1),
    _of("004_operators", oldest=1),
    _of("005_when", oldest=1),
)
VERSION = len(MIGRATIONS)
_IS_THERE = (
    "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE n.nspname = $1 AND c.relname = 'oncue_counter'"
)
_LOCK = 7_245_302_771
_LOCK_WAIT = "1s"
_TRIES = 40
_PAUSE = 1.5
# Building an index takes its time, and so may whoever migrates before us.
_LONG = 3600.0


def locks() -> list[str]:
    """Return the statements that begin a step: one who migrates waits for another, and for nobody else for long."""
    return [
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL lock_timeout = 0",
        f"SELECT pg_advisory_xact_lock({_LOCK})",
        f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'",
    ]


def forward(number: int, schema: str) -> str:
    """Return the SQL that takes the tables from version ``number`` - 1 to ``number``, without a transaction."""
    step = MIGRATIONS[number - 1]
    # CREATE SCHEMA IF NOT EXISTS asks for the privilege also where the schema exists.
    first = (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') "
        f'THEN CREATE SCHEMA "{schema}"; END IF; END $$;'
    )
    begin = first if number == 1 else _expect(number - 1, schema)
    return f"{begin}\n{qualified(step.up, schema).strip()}\n{_record(number, schema)}\n"


def backward(number: int, schema: str) -> str:
    """Return the SQL that takes the tables from version ``number`` back to the one before, without a transaction."""
    end = "" if number == 1 else _record(number - 1, schema) + "\n"
    down = qualified(MIGRATIONS[number - 1].down, schema).strip()
    return f"{_expect(number, schema)}\n{down}\n{end}"


def script(number: int, schema: str) -> str:
    """Return ``forward`` as a script for psql: a transaction under the lock that all who migrate take."""
    begin = "".join(f"{one};\n" for one in ["BEGIN", *locks()])
    return f"-- OnCue's tables in schema {schema}, version {number}\n{begin}{forward(number, schema)}COMMIT;\n"


def _expect(number: int, schema: str) -> str:
    counter = qualified("oncue_counter", schema)
    return (
        f"DO $$ BEGIN IF (SELECT value FROM {counter} WHERE name = 'schema') IS DISTINCT FROM {number} "  # noqa: S608
        f"THEN RAISE EXCEPTION 'The tables of OnCue in schema {schema} are not of version {number}'; END IF; END $$;"
    )


def _record(number: int, schema: str) -> str:
    return (
        f"INSERT INTO {qualified('oncue_counter', schema)} (name, value) "  # noqa: S608
        f"VALUES ('schema', {number}), ('schema_oldest', {MIGRATIONS[number - 1].oldest}) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value;"
    )


async def versions_of(conn: Connection, schema: str) -> tuple[int, int]:
    """Return the version of OnCue's tables in a schema and the oldest that works with them; (0, 0) without tables."""
    # to_regclass() may answer from a cache what was so before the lock that we waited for.
    if not await conn.fetchval(_IS_THERE, schema):
        return 0, 0
    sql = qualified("SELECT name, value FROM oncue_counter WHERE name IN ('schema', 'schema_oldest')", schema)
    found = {row["name"]: int(row["value"]) for row in await conn.fetch(sql)}
    version = found.get("schema", 0)
    return version, found.get("schema_oldest", version)


async def version_of(conn: Connection, schema: str) -> int:
    """Return the version of OnCue's tables in a schema, 0 where there are none."""
    return (await versions_of(conn, schema))[0]


async def prepare(conn: Connection, url: PostgresUrl, *, migrate: bool) -> None:
    """Bring the tables up to date, or only check them. Raises SchemaTooOld or SchemaTooNew.

    Newer tables are good where their last step says that this version goes on with them.
    """
    found, oldest = await versions_of(conn, url.schema)
    if found > VERSION and oldest > VERSION:
        raise SchemaTooNew(too_new(found))
    if found >= VERSION:
        return
    if not migrate:
        raise SchemaTooOld(too_old(url, found))
    for _ in range(_TRIES):
        try:
            while await _step(conn, url, found):
                pass
            return
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.0))
        except asyncpg.InsufficientPrivilegeError as error:
            raise StoreError(await _forbidden(conn, url, str(error))) from error
    raise StoreBusy(
        f"{url.shown}: the tables could not be migrated: others held locks on them at {_TRIES} tries. Nothing was "
        "left half done. Look for long transactions in pg_stat_activity, then run `oncue migrate` again."
    )


async def _step(conn: Connection, url: PostgresUrl, began: int) -> bool:
    """Take the next step; False where there is none. ``began``: what was found when this migration started."""
    schema = url.schema
    async with conn.transaction(isolation="read_committed"):
        await conn.execute("; ".join(locks()), timeout=_LONG)
        found, _ = await versions_of(conn, schema)
        if found >= VERSION:
            return False
        if MIGRATIONS[found].oldest > began > 0:
            alive = (
                "SELECT count(*) FROM oncue_worker WHERE lease_until > extract(epoch FROM clock_timestamp()) * 1000000"
            )
            if count := await conn.fetchval(qualified(alive, schema)):
                who = counted(count, "worker is", "workers are")
                raise StoreError(
                    f"{url.shown}: {who} alive that may know version {began} of the tables only, and "
                    f"would fail after the step to {found + 1}. Stop them first, or deploy the release between and "
                    "migrate with that one."
                )
        await conn.execute(forward(found + 1, schema), timeout=_LONG)
    return True


async def _forbidden(conn: Connection, url: PostgresUrl, said: str) -> str:
    """Return what to tell a person whose role may not create or change the tables, with the GRANT that helps."""
    role, database = await conn.fetchrow("SELECT quote_ident(current_user), quote_ident(current_database())") or (
        "",
        "",
    )
    schema = f'"{url.schema}"'
    there = await conn.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", url.schema)
    if not there:
        remedy = f"GRANT CREATE ON DATABASE {database} TO {role}; or CREATE SCHEMA {schema} AUTHORIZATION {role};"
    elif not await conn.fetchval("SELECT has_schema_privilege($1, 'CREATE')", url.schema):
        remedy = f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};"
    else:
        remedy = "only the tables' owner may change them."
    return (
        f"{url.shown}: role {role} may not create or change OnCue's tables ({said}). Run `oncue migrate` as their "
        f"owner, or: {remedy}"
    )


def too_new(found: int) -> str:
    """Return what to tell a person whose database a newer OnCue wrote."""
    return (
        f"The database has OnCue's schema version {found}; this OnCue knows version {VERSION}. Nothing was "
        "changed. Upgrade oncue here, or restore the backup taken before the upgrade."
    )


def too_old(url: PostgresUrl, found: int) -> str:
    """Return what to tell a person whose database has no tables yet, or older ones."""
    there = f"OnCue's tables of version {found}" if found else "no OnCue tables"
    return (
        f"{url.shown} has {there} in schema {url.schema!r}; this OnCue works with version {VERSION}. "
        "Run `oncue migrate` (or start a worker), or check that DATABASE_URL is right."
    )


async def view(url: PostgresUrl, patience: float) -> SchemaView:
    """Look at the tables, changing nothing. Raises a StoreError where the server can't be reached."""
    pool = Pool(url, 1, patience)
    exists, location = True, f"{url.shown}, schema {url.schema}"
    try:
        found, oldest = await pool.run(lambda conn: versions_of(conn, url.schema))
    except NoDatabase:
        found, oldest, exists = 0, 0, False
    finally:
        await pool.close()
    pending = [script(number, url.schema) for number in range(found + 1, VERSION + 1)]
    return SchemaView(location, exists, found, VERSION, pending, oldest)
