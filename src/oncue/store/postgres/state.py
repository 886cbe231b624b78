"""What the server, its settings, its sessions and the tables say about their health. Changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from oncue.dsn import PostgresUrl
from oncue.store.postgres import history
from oncue.store.postgres.connection import Connection
from oncue.store.postgres.trouble import is_unreachable, translate
from oncue.store.views import Check
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

OLDEST_SERVER = 14
_SKEW = 1.0
_UNCERTAIN = 0.05
_SHORT_MS = 5_000
_OLD_SECONDS = 600
_IDLE_SECONDS = 5
_ROWS = 20_000
_FEW_LEFT = 10

_TABLES = (
    "oncue_job", "oncue_finished", "oncue_finished_rest", "oncue_attempt", "oncue_worker", "oncue_schedule",
    "oncue_source", "oncue_source_row", "oncue_source_change", "oncue_limit", "oncue_queue", "oncue_release",
    "oncue_counter", "oncue_adopted", "oncue_channel", "oncue_person", "oncue_chat", "oncue_chat_step",
    "oncue_message", "oncue_sent", "oncue_status", "oncue_inbound", "oncue_update", "oncue_event", "oncue_audit",
    "oncue_token", "oncue_task_pause", "oncue_minute", "oncue_alert",
)  # fmt: skip
_FOUND = "SELECT relname::text FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p')"
_LACKS = """
SELECT c.relname::text, string_agg(p.verb, ', ' ORDER BY p.verb) FROM pg_class AS c
CROSS JOIN LATERAL unnest(CASE WHEN c.relkind = 'S' THEN ARRAY['USAGE']
                          ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] END) AS p (verb)
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'S') AND c.relname LIKE 'oncue\\_%'
  AND c.relname !~ '^oncue_finished_[0-9]' AND NOT CASE WHEN c.relkind = 'S'
    THEN has_sequence_privilege(c.oid, 'USAGE') ELSE has_table_privilege(c.oid, p.verb) END
GROUP BY c.relname, c.relkind ORDER BY c.relkind = 'S', c.relname"""
_CONNECTIONS = """
SELECT (SELECT count(*) FROM pg_stat_activity
        WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend') AS used,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'oncue%') AS ours,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
       (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS role_used"""
# What others' sessions do is hidden from other roles, their type too, as NULL.
_BLIND = """
SELECT quote_ident(current_user) WHERE NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"""
_OLD = """
SELECT 'session ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') AS who,
       extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds
FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND xact_start < clock_timestamp() - $1 * interval '1 second'
UNION ALL
SELECT 'prepared transaction ' || quote_literal(gid), extract(epoch FROM clock_timestamp() - prepared)::bigint
FROM pg_prepared_xacts WHERE prepared < clock_timestamp() - $1 * interval '1 second'
UNION ALL
SELECT 'replication slot ' || slot_name || ' (inactive)', NULL FROM pg_replication_slots
WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
ORDER BY 2 DESC NULLS FIRST LIMIT 3"""
_DEAD = """
SELECT coalesce(n_live_tup, 0) AS live, coalesce(n_dead_tup, 0) AS dead,
       pg_total_relation_size(relid) AS bytes,
       coalesce(greatest(last_vacuum, last_autovacuum)::text, 'never') AS vacuumed
FROM pg_stat_user_tables WHERE relid = (
  SELECT oid FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relname = 'oncue_job')"""
_HOLDERS = """
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), a.usename::text) AS name,
       extract(epoch FROM clock_timestamp() - a.state_change)::bigint AS seconds
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation = (SELECT oid FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relname = 'oncue_job')
  AND l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND a.state LIKE 'idle in transaction%'
  AND a.state_change < clock_timestamp() - $2 * interval '1 second'
ORDER BY seconds DESC LIMIT 3"""


async def check(conn: Connection, store: PostgresStore) -> list[Check]:
    """Return what the server's settings, its sessions and the tables say, each with a remedy."""
    schema = store.schema_name
    looks: dict[str, Callable[[], Awaitable[Check]]] = {
        "server": lambda: _server(conn),
        "durability": lambda: _durability(conn),
        "tables": lambda: _tables(conn, schema),
        "privileges": lambda: _privileges(conn, schema),
        "history": lambda: history.check(conn, schema, store.clock.now()),
        "connections": lambda: _connections(conn),
        "pooler": lambda: _pooler(conn, store.address.pooled),
        "timeouts": lambda: _timeouts(conn),
        "vacuum": lambda: _vacuum(conn, schema),
        "transactions": lambda: _transactions(conn, schema),
    }
    return [*[await _tried(name, look, store.address) for name, look in looks.items()], _clock(store)]


async def _tried(name: str, look: Callable[[], Awaitable[Check]], url: PostgresUrl) -> Check:
    """Look; what the server refuses this role is a finding of its own, and the other checks go on."""
    try:
        return await look()
    except asyncpg.PostgresError as error:
        if is_unreachable(error):
            raise
        return Check(name, "FAIL", str(translate(error, url)))


async def _server(conn: Connection) -> Check:
    version = conn.get_server_version()
    found = f"PostgreSQL {await conn.fetchval('SHOW server_version')}"
    if version.major < OLDEST_SERVER:
        return Check("server", "FAIL", found, f"OnCue needs PostgreSQL {OLDEST_SERVER} or later: upgrade the server.")
    # A standby, or a server set to read-only, was refused before we came here.
    return Check("server", "ok", f"{found}, takes writes")


async def _durability(conn: Connection) -> Check:
    settings = {name: str(await conn.fetchval(f"SHOW {name}")) for name in ("fsync", "full_page_writes")}
    level = str(await conn.fetchval("SHOW synchronous_commit"))
    found = f"fsync={settings['fsync']}, full_page_writes={settings['full_page_writes']}, synchronous_commit={level}"
    if set(settings.values()) == {"on"} and level != "off":
        return Check("durability", "ok", f"{found}: what is promised survives a crash")
    remedy = (
        "Set them on, synchronous_commit for OnCue's role at least: what schedule() promised may be lost in a crash."
    )
    return Check("durability", "FAIL", found, remedy)


async def _tables(conn: Connection, schema: str) -> Check:
    found = {row[0] for row in await conn.fetch(_FOUND, f'"{schema}"')}
    if missing := [name for name in _TABLES if name not in found]:
        return Check("tables", "FAIL", f"missing: {', '.join(missing)}", "Restore a backup: someone dropped them.")
    return Check("tables", "ok", f"all there, in schema {schema}")


async def _privileges(conn: Connection, schema: str) -> Check:
    lacks = [f"{verbs} on {name}" for name, verbs in await conn.fetch(_LACKS, f'"{schema}"')]
    role = await conn.fetchval("SELECT current_user")
    if not lacks:
        return Check("privileges", "ok", f"role {role} may do all that a worker does")
    found = f"role {role} can't run a worker; it lacks {'; '.join(lacks[:4])}{' and more' if len(lacks) > 4 else ''}"
    remedy = "Enough where it only schedules. For a worker see docs/how-to/postgresql.md#least-privileges."
    return Check("privileges", "warn", found, remedy)


def _clock(store: PostgresStore) -> Check:
    skew = float(getattr(store.clock, "skew", 0.0))
    uncertain = float(getattr(store.clock, "uncertainty", 0.0))
    side = "ahead of" if skew > 0 else "behind"
    found = f"the server's is {abs(skew):.3f} s {side} this machine's, known to {uncertain * 1000:.1f} ms"
    if abs(skew) > _SKEW:
        remedy = "Jobs start by the server's time all the same. Times that you compute here are off: run NTP on both."
        return Check("clock skew", "warn", found, remedy)
    if uncertain > _UNCERTAIN:
        remedy = "Jobs start later by so much: bring workers nearer to the server, or look at the network."
        return Check("clock skew", "warn", found, remedy)
    return Check("clock skew", "ok", found)


async def _connections(conn: Connection) -> Check:
    row: Any = await conn.fetchrow(_CONNECTIONS)
    found = f"{row['used']} of {row['most']} in use, {row['ours']} of them OnCue's"
    left = row["most"] - row["used"]
    if row["role_limit"] >= 0:
        found += f"; the role has {row['role_used']} of {row['role_limit']}"
        left = min(left, row["role_limit"] - row["role_used"])
    if left < _FEW_LEFT:
        remedy = "A worker process needs seven: raise max_connections or the role's limit, or put a pooler between."
        return Check("connections", "warn", found, remedy)
    return Check("connections", "ok", found)


async def _pooler(conn: Connection, said: bool) -> Check:
    between = await conn.fetchval("SELECT pg_backend_pid()") != conn.get_server_pid()
    if between and not said:
        remedy = (
            "If it pools by transaction, add pgbouncer=true to the URL, and give LISTEN a way past it: "
            'OnCue(url, wake="postgresql://...") with the server\'s own address.'
        )
        return Check("pooler", "warn", "a pooler stands between us and the server", remedy)
    if said:
        found = "a pooler stands between, as the URL says" if between else "the URL says pgbouncer=true; none was seen"
        return Check("pooler", "ok", found)
    return Check("pooler", "ok", "none between us and the server")


async def _timeouts(conn: Connection) -> Check:
    names = "('statement_timeout', 'transaction_timeout', 'idle_session_timeout')"
    rows = await conn.fetch(f"SELECT name, setting::bigint FROM pg_settings WHERE name IN {names}")  # noqa: S608
    short = [f"{name} = {value} ms" for name, value in rows if 0 < value < _SHORT_MS]
    if short:
        remedy = f"ALTER ROLE ... SET it to {_SHORT_MS} or more, or 0: a claim or a sweep may need so long."
        return Check("timeouts", "warn", f"{', '.join(short)} for this role", remedy)
    return Check("timeouts", "ok", "none of the server's is too short")


async def _vacuum(conn: Connection, schema: str) -> Check:
    row: Any = await conn.fetchrow(_DEAD, f'"{schema}"')
    if row is None:
        return Check("vacuum", "warn", "nothing is known of oncue_job", "Is it there, and track_counts on?")
    rows, dead = counted(row["live"], "row"), counted(row["dead"], "dead one")
    found = f"oncue_job has {rows} and {dead} in {row['bytes'] / 1e6:,.1f} MB, vacuumed {str(row['vacuumed'])[:19]}"
    if await conn.fetchval("SHOW autovacuum") != "on":
        return Check(
            "vacuum", "FAIL", f"autovacuum is off; {found}", "Set autovacuum = on: claims get slower and slower."
        )
    if row["dead"] > max(_ROWS, 2 * row["live"]):
        remedy = "Autovacuum doesn't keep up: end old transactions (below), or raise autovacuum_max_workers."
        return Check("vacuum", "warn", found, remedy)
    return Check("vacuum", "ok", found)


async def _transactions(conn: Connection, schema: str) -> Check:
    holders = await conn.fetch(_HOLDERS, f'"{schema}"', _IDLE_SECONDS)
    if holders:
        names = "; ".join(f"session {row['pid']} ({row['name']}) for {row['seconds']} s" for row in holders)
        remedy = (
            "Commit or roll back there, or SELECT pg_terminate_backend(PID); set idle_in_transaction_session_timeout."
        )
        return Check("transactions", "warn", f"idle in a transaction that changed jobs, which wait: {names}", remedy)
    old = await conn.fetch(_OLD, _OLD_SECONDS)
    if old:
        names = "; ".join(row["who"] + (f" for {row['seconds']} s" if row["seconds"] else "") for row in old)
        remedy = (
            "End them (pg_terminate_backend, ROLLBACK PREPARED, pg_drop_replication_slot): dead rows stay meanwhile."
        )
        return Check("transactions", "warn", f"old ones hold back vacuum: {names}", remedy)
    if role := await conn.fetchval(_BLIND):
        found = f"role {role} can't see other roles' sessions"
        return Check("transactions", "warn", found, f"GRANT pg_read_all_stats TO {role}")
    return Check("transactions", "ok", f"none is older than {_OLD_SECONDS // 60} min or sits idle on jobs")
