-- Tables that make jobs.

-- name: source_lock
SELECT pg_advisory_xact_lock(hashtextextended('oncue_source:' || :source, 0));

-- name: source_memory
SELECT coalesce(json_agg(json_build_array(row_key::json, due, job, unsettled)), '[]')::text FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: source_jobs
-- Locked, so that none is claimed, and run for its old due time, while it is moved to another.
SELECT coalesce(json_agg(json_build_array(
         j.id, j.state, j.attempt, j.key, j.group_name, j.scheduled_at,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = j.id AND t.attempt = 1), j.scheduled_at),
         j.origin, j.origin_ref, j.task, j.args, j.queue, j.priority)), '[]')::text
FROM (SELECT * FROM oncue_job WHERE id = ANY (ARRAY(
  -- OFFSET 0: each prefix is looked up by the index. Else all jobs of the source are compared with each prefix.
  SELECT o.id FROM json_array_elements_text(:prefixes::json) AS p (value) CROSS JOIN LATERAL (
    SELECT id FROM oncue_job
    WHERE origin = :origin AND origin_ref >= p.value || ',' AND origin_ref < p.value || '-' OFFSET 0) AS o
  UNION
  SELECT id FROM oncue_job
  WHERE key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND key IS NOT NULL AND attempt = 0
  UNION
  SELECT id FROM oncue_job
  WHERE key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND key IS NOT NULL AND attempt > 0
  )) ORDER BY id FOR UPDATE) AS j;

-- name: outcomes_of
SELECT coalesce(json_agg(json_build_array(id, outcome)), '[]')::text FROM oncue_finished
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)));

-- name: source_done_refs
SELECT coalesce(json_agg(json_build_array(origin_ref, id)), '[]')::text FROM oncue_finished
WHERE origin = :origin AND origin_ref = ANY (ARRAY(SELECT value FROM json_array_elements_text(:refs::json)))
  AND outcome NOT IN ('skipped', 'withdrawn');

-- name: source_done_keys
SELECT coalesce(json_agg(json_build_array(
         f.key, f.id,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = f.id AND t.attempt = 1), f.scheduled_at)
         )), '[]')::text
FROM oncue_finished AS f
WHERE f.key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND f.key IS NOT NULL
  AND f.origin IS NULL;

-- name: source_live
SELECT coalesce(json_agg(origin_ref::json), '[]')::text FROM oncue_job
WHERE origin = :origin AND state = 'scheduled' AND created_at < :before::bigint;

-- name: source_move
UPDATE oncue_job
SET {first_due}, scheduled_at = m.due, origin_ref = coalesce(m.ref, origin_ref), holds = 0,
    eligible_at = CASE WHEN blocked_by = 'restore' THEN NULL ELSE m.due END,
    blocked_by = CASE WHEN blocked_by = 'restore' THEN blocked_by END
FROM (SELECT (value ->> 0)::bigint AS id, (value ->> 1)::bigint AS due, value ->> 2 AS ref
      FROM json_array_elements(:moves::json)) AS m
WHERE oncue_job.id = m.id AND state = 'scheduled';

-- name: source_remember
-- Entries of (row key as JSON text, due, raw due value as JSON text, job, unsettled), each key once.
INSERT INTO oncue_source_row AS r (source, row_key, due, raw, job, unsettled)
SELECT :source, value ->> 0, (value ->> 1)::bigint, value ->> 2, (value ->> 3)::bigint, (value ->> 4)::int
FROM json_array_elements(:entries::json)
ON CONFLICT (source, row_key) DO UPDATE SET due = excluded.due, raw = excluded.raw, job = excluded.job,
  unsettled = excluded.unsettled
WHERE (r.due, r.raw, r.job, r.unsettled)
  IS DISTINCT FROM (excluded.due, excluded.raw, excluded.job, excluded.unsettled);

-- name: source_forget
DELETE FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: source_forget_gone
DELETE FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(
  SELECT oncue_r.row_key FROM oncue_source_row AS oncue_r
  WHERE oncue_r.source = :source AND oncue_r.due < :before::bigint AND {gone}
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = oncue_r.job) LIMIT :most::int));

-- name: source_unsettle
UPDATE oncue_source_row SET unsettled = :unsettled::int
WHERE source = :source AND row_key = (:row::json -> 0)::text AND due = :due::bigint AND job = :job::bigint
  AND unsettled <> :unsettled::int;

-- name: source_unsettled
SELECT unsettled FROM oncue_source_row
WHERE source = :source AND row_key = (:row::json -> 0)::text AND due = :due::bigint AND job = :job::bigint;

-- name: source_listed
INSERT INTO oncue_source AS s (name, app, listed_at) VALUES (:name, '', :listed::bigint)
ON CONFLICT (name) DO UPDATE SET listed_at = excluded.listed_at WHERE s.listed_at <= excluded.listed_at;

-- name: source_changes
SELECT coalesce(json_agg(json_build_array(source, row_key::json)), '[]')::text FROM (
  SELECT DISTINCT source, row_key
  FROM (SELECT source, row_key FROM oncue_source_change ORDER BY id LIMIT 5000) AS c) AS d;

-- name: source_changed
SELECT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = :source);

-- name: note_change
-- Always a row of its own: where two writers shared one, the second would wait for the first, or its note would go
-- with the first one's. A note that nobody took for a minute stands for later ones too, so that they don't pile up.
INSERT INTO oncue_source_change (source, row_key, noted_at)
SELECT {source}, to_json({id})::text, {now}
WHERE {id} IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM oncue_source_change
                  WHERE source = {source} AND row_key = to_json({id})::text AND noted_at < {now} - 60000000);

-- name: note_rows
INSERT INTO oncue_source_change (source, row_key, noted_at)
SELECT :source, value::text, (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
FROM json_array_elements(:keys::json);

-- name: drop_changes
DELETE FROM oncue_source_change WHERE source = :source;

-- name: drop_some_changes
DELETE FROM oncue_source_change
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: save_source
INSERT INTO oncue_source AS s (name, app, swept_at, made, moved, cancelled, unreadable, drift, drift_since)
VALUES (:name, :app, :swept_at::bigint, :made::bigint, :moved::bigint, :cancelled::bigint, :unreadable::bigint,
        :drift::text, CASE WHEN :drift::text IS NOT NULL THEN :swept_at::bigint END)
ON CONFLICT (name) DO UPDATE SET app = excluded.app, swept_at = excluded.swept_at, made = s.made + excluded.made,
  moved = s.moved + excluded.moved, cancelled = s.cancelled + excluded.cancelled, unreadable = excluded.unreadable,
  drift = excluded.drift,
  drift_since = CASE WHEN excluded.drift IS NOT NULL THEN coalesce(s.drift_since, excluded.swept_at) END;

-- name: sources
SELECT coalesce(json_agg(json_build_array(name, app, swept_at, made, moved, cancelled, unreadable, drift::json,
                         drift_since) ORDER BY name), '[]')::text FROM oncue_source;
