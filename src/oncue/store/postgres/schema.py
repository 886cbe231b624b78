"""Creating and migrating OnCue's tables: versioned, once, under an advisory lock."""

from __future__ import annotations

from oncue.dsn import PostgresUrl
from oncue.errors import NoDatabase, SchemaTooNew, SchemaTooOld
from oncue.store.postgres.connection import Connection, Pool
from oncue.store.postgres.run import qualified
from oncue.store.sql import text
from oncue.store.views import SchemaView

MIGRATIONS = ("schema.sql",)
VERSION = len(MIGRATIONS)
_LOCK = 7_245_302_771


def script(name: str, schema: str) -> str:
    """Return the text of one migration for a schema."""
    return qualified(text("postgres", name), schema)


async def version_of(conn: Connection, schema: str) -> int:
    """Return the version of OnCue's tables in a schema, 0 where there are none."""
    if not await conn.fetchval("SELECT to_regclass($1)", f'"{schema}".oncue_counter'):
        return 0
    sql = qualified("SELECT value FROM oncue_counter WHERE name = 'schema'", schema)
    return int(await conn.fetchval(sql) or 0)


async def prepare(conn: Connection, url: PostgresUrl, *, migrate: bool) -> None:
    """Bring the tables up to date, or only check them. Raises SchemaTooOld or SchemaTooNew."""
    found = await version_of(conn, url.schema)
    if found == VERSION:
        return
    if found > VERSION:
        raise SchemaTooNew(too_new(found))
    if not migrate:
        raise SchemaTooOld(too_old(url, found))
    await _migrate(conn, url.schema)


async def _migrate(conn: Connection, schema: str) -> None:
    async with conn.transaction(isolation="read_committed"):
        await conn.execute("SET LOCAL lock_timeout = 0")
        await conn.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        found = await version_of(conn, schema)
        if found == 0 and not await conn.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
            await conn.execute(f'CREATE SCHEMA "{schema}"')
        for name in MIGRATIONS[found:]:
            await conn.execute(script(name, schema))
        sql = (
            "INSERT INTO oncue_counter (name, value) VALUES ('schema', $1) ON CONFLICT (name) DO UPDATE SET value = $1"
        )
        await conn.execute(qualified(sql, schema), VERSION)


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
    """Look at the tables without creating or changing anything. Raises a StoreError where the server can't be reached."""
    pool = Pool(url, 1, patience)
    try:
        found = await pool.run(lambda conn: version_of(conn, url.schema))
        exists = True
    except NoDatabase:
        found, exists = 0, False
    finally:
        await pool.close()
    pending = [script(name, url.schema) for name in MIGRATIONS[found:]]
    return SchemaView(url.shown, exists, found, VERSION, pending)
