-- Tables that make jobs.

-- name: source_lock
-- Whoever writes is alone already.
SELECT 1;

-- name: source_memory
SELECT json_group_array(json_array(row_key, due, job, unsettled)) FROM oncue_source_row
WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: source_jobs
SELECT json_group_array(json_array(
         j.id, j.state, j.attempt, j.key, j.group_name, j.scheduled_at,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = j.id AND t.attempt = 1), j.scheduled_at),
         j.origin, j.origin_ref, j.task, j.args, j.queue, j.priority))
FROM oncue_job AS j
WHERE j.id IN (
  SELECT o.id FROM json_each(:prefixes) AS p CROSS JOIN oncue_job AS o
    ON o.origin = :origin AND o.origin_ref >= p.value || ',' AND o.origin_ref < p.value || '-'
  UNION
  SELECT id FROM oncue_job WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt = 0
  UNION
  SELECT id FROM oncue_job WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt > 0);

-- name: outcomes_of
SELECT json_group_array(json_array(id, outcome)) FROM oncue_finished WHERE id IN (SELECT value FROM json_each(:ids));

-- name: source_done_refs
SELECT json_group_array(json_array(origin_ref, id)) FROM oncue_finished
WHERE origin = :origin AND origin_ref IN (SELECT value FROM json_each(:refs))
  AND outcome NOT IN ('skipped', 'withdrawn');

-- name: source_done_keys
SELECT json_group_array(json_array(
         f.key, f.id,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = f.id AND t.attempt = 1), f.scheduled_at)))
FROM oncue_finished AS f
WHERE f.key IN (SELECT value FROM json_each(:keys)) AND f.key IS NOT NULL AND f.origin IS NULL;

-- name: source_live
SELECT json_group_array(json(origin_ref)) FROM oncue_job
WHERE origin = :origin AND state = 'scheduled' AND created_at < :before;

-- name: source_move
UPDATE oncue_job
SET {first_due}, scheduled_at = m.value->>1, origin_ref = coalesce(m.value->>2, origin_ref), holds = 0,
    eligible_at = CASE WHEN blocked_by = 'restore' THEN NULL ELSE m.value->>1 END,
    blocked_by = CASE WHEN blocked_by = 'restore' THEN blocked_by END
FROM json_each(:moves) AS m WHERE oncue_job.id = m.value->>0 AND state = 'scheduled';

-- name: source_remember
INSERT INTO oncue_source_row (source, row_key, due, raw, job, unsettled) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (source, row_key) DO UPDATE SET due = excluded.due, raw = excluded.raw, job = excluded.job,
  unsettled = excluded.unsettled
WHERE (due, raw, job, unsettled) IS NOT (excluded.due, excluded.raw, excluded.job, excluded.unsettled);

-- name: source_forget
DELETE FROM oncue_source_row WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: source_forget_gone
DELETE FROM oncue_source_row
WHERE source = :source AND row_key IN (
  SELECT row_key FROM oncue_source_row AS r
  WHERE source = :source AND due < :before AND {gone}
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = r.job) LIMIT :most);

-- name: source_unsettle
UPDATE oncue_source_row SET unsettled = :unsettled
WHERE source = :source AND row_key = :row->>0 AND due = :due AND job = :job AND unsettled <> :unsettled;

-- name: source_unsettled
SELECT unsettled FROM oncue_source_row WHERE source = :source AND row_key = :row->>0 AND due = :due AND job = :job;

-- name: source_listed
INSERT INTO oncue_source (name, app, listed_at) VALUES (:name, '', :listed)
ON CONFLICT (name) DO UPDATE SET listed_at = excluded.listed_at WHERE listed_at <= excluded.listed_at;

-- name: source_changes
SELECT json_group_array(json_array(source, row_key)) FROM (SELECT source, row_key FROM oncue_source_change LIMIT 5000);

-- name: source_changed
SELECT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = :source);

-- name: note_change
INSERT INTO oncue_source_change (source, row_key)
SELECT {source}, {id}
WHERE {id} IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = {source} AND row_key = {id});

-- name: note_rows
INSERT OR IGNORE INTO oncue_source_change (source, row_key) SELECT :source, value FROM json_each(:keys);

-- name: drop_changes
DELETE FROM oncue_source_change WHERE source = :source;

-- name: drop_some_changes
DELETE FROM oncue_source_change WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: save_source
INSERT INTO oncue_source (name, app, swept_at, made, moved, cancelled, unreadable, drift, drift_since)
VALUES (:name, :app, :swept_at, :made, :moved, :cancelled, :unreadable, :drift, iif(:drift IS NULL, NULL, :swept_at))
ON CONFLICT (name) DO UPDATE SET app = excluded.app, swept_at = excluded.swept_at, made = made + excluded.made,
  moved = moved + excluded.moved, cancelled = cancelled + excluded.cancelled, unreadable = excluded.unreadable,
  drift = excluded.drift, drift_since = iif(excluded.drift IS NULL, NULL, coalesce(drift_since, excluded.swept_at));

-- name: sources
SELECT json_group_array(json_array(name, app, swept_at, made, moved, cancelled, unreadable, json(drift),
         drift_since))
FROM (SELECT * FROM oncue_source ORDER BY name);
