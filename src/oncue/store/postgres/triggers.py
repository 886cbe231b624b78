"""The triggers that note changed rows of a user's table in PostgreSQL: those there are and those there should be. Pure.

A source has one function in OnCue's schema, named by a hash of all that it depends on and commented with the source's
name, and three triggers that call it. It runs with the rights of its owner, so that whoever writes to the table needs
none on OnCue's tables. To drop the function is to drop its triggers, which takes no ownership of the user's table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from oncue.channel import channel_of
from oncue.store.postgres.rows import literal, quoted, relation
from oncue.store.postgres.run import qualified
from oncue.store.sources import Table
from oncue.store.sql import queries
from oncue.store.steps import as_json

_PREFIX = "oncue_note_"
_FUNCTION = """CREATE FUNCTION {name}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $oncue$
DECLARE
  oncue_now bigint := extract(epoch FROM transaction_timestamp()) * 1000000;
BEGIN
  IF TG_OP = 'INSERT' THEN
    {new};
  ELSIF TG_OP = 'DELETE' THEN
    {old};
  ELSE
    {new};
    IF OLD.{id} IS DISTINCT FROM NEW.{id} THEN
      {old};
    END IF;
  END IF;
  PERFORM pg_notify({channel}, oncue_now::text);
  RETURN NULL;
END $oncue$"""
_STATE = """SELECT json_build_object(
  'functions', (
    SELECT coalesce(json_agg(json_build_array(p.proname, coalesce(obj_description(p.oid, 'pg_proc'), ''), (
      SELECT coalesce(json_agg(json_build_array(t.tgname, t.tgrelid::bigint)), '[]') FROM pg_trigger AS t
      WHERE t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgparentid = 0))), '[]')
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = $1 AND p.proname LIKE 'oncue\\_note\\_%'),
  'tables', (
    SELECT coalesce(json_object_agg(w.value, json_build_array(c.oid::bigint, c.relkind)), '{}')
    FROM json_array_elements_text($2::json) AS w LEFT JOIN pg_class AS c ON c.oid = to_regclass(w.value)),
  'gone', (
    SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM oncue_source
    WHERE app = $3 AND name NOT IN (SELECT value FROM json_array_elements_text($4::json))))::text"""


class State(msgspec.Struct):
    """What there is: functions as (name, source, their triggers as (name, table's oid)); the wanted tables' oid and
    kind by quoted name, None where there is none; sources of the application that its code has no more."""

    functions: list[tuple[str, str, list[tuple[str, int]]]]
    tables: dict[str, tuple[int | None, str | None]]
    gone: list[str]


@dataclass(frozen=True, slots=True)
class Definition:
    """The function of a source by its bare name, what makes it anew, and what makes its triggers, by name."""

    table: Table
    name: str
    function: tuple[str, ...]
    triggers: dict[str, str]


def state(app: str, names: Sequence[str], wanted: Sequence[Table], schema: str) -> tuple[str, tuple[str, ...]]:
    """Return the query, and its arguments, whose one value is the JSON of a ``State``."""
    tables = sorted({relation(table.table) for table in wanted})
    return qualified(_STATE, schema), (schema, as_json(tables), app, as_json(list(names)))


def definition(table: Table, schema: str) -> Definition:
    """Return what a source's function and triggers should be."""
    due, id, on = quoted(table.due), quoted(table.id), relation(table.table)
    # The condition may read any column; without one only these two matter. A column list (UPDATE OF) would miss what
    # another trigger of the user's changes.
    changed = f"NEW.{due} IS DISTINCT FROM OLD.{due} OR NEW.{id} IS DISTINCT FROM OLD.{id}"
    events = {
        "insert": f"NEW.{due} IS NOT NULL",
        "update": f"NEW.{due} IS NOT NULL OR OLD.{due} IS NOT NULL" if table.where else changed,
        "delete": f"OLD.{due} IS NOT NULL",
    }

    def note(row: str) -> str:
        text = qualified(queries("postgres")["note_change"], schema)
        values = {"{id}": f"{row}.{id}", "{source}": literal(table.source), "{now}": "oncue_now"}
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    parts = {"new": note("NEW"), "old": note("OLD"), "id": id, "channel": literal(channel_of(schema))}
    text = _FUNCTION
    for part, value in parts.items():
        text = text.replace(f"{{{part}}}", value)
    digest = hashlib.sha256("\n".join([text, schema, on, *events.values()]).encode()).hexdigest()[:16]
    name = _PREFIX + digest
    function = f"{quoted(schema)}.{name}"
    made = (
        drop_text(name, schema),
        text.replace("{name}", function),
        f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
        f"COMMENT ON FUNCTION {function}() IS {literal(table.source)}",
    )
    triggers = {
        f"{name}_{event}": f"CREATE TRIGGER {name}_{event} AFTER {event.upper()} ON {on} FOR EACH ROW "
        f"WHEN ({condition}) EXECUTE FUNCTION {function}()"
        for event, condition in events.items()
    }
    return Definition(table, name, made, triggers)


def differences(
    found: State, names: Sequence[str], wanted: Sequence[Table], schema: str
) -> tuple[list[Definition], dict[str, str]]:
    """Return what is to be made, and the functions to be dropped with their sources.

    An application drops those of its own sources only, and those of sources that it has given up.
    """
    there = {name: triggers for name, _, triggers in found.functions}
    make: list[Definition] = []
    keep: set[str] = set()
    for table in wanted:
        one = definition(table, schema)
        oid, _ = found.tables[relation(table.table)]
        # A renamed table takes its triggers along: then they stand on it, and the new one has none.
        if one.name in there and sorted(there[one.name]) == sorted((name, oid) for name in one.triggers):
            keep.add(one.name)
        else:
            make.append(one)
    mine = {*names, *found.gone}
    drop = {name: source for name, source, _ in found.functions if name not in keep and source in mine}
    return make, drop


def drop_text(name: str, schema: str) -> str:
    """Return the statement that drops a source's function and the triggers that call it."""
    return f"DROP FUNCTION IF EXISTS {quoted(schema)}.{quoted(name)}() CASCADE"
