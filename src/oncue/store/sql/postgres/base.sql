-- Ids, and what is asked of the server itself.

-- name: take_ids
SELECT json_agg(nextval('oncue_job_id_seq'))::text FROM generate_series(1, :count::int);

-- name: take_worker_ids
SELECT json_agg(nextval('oncue_worker_id_seq'))::text FROM generate_series(1, :count::int);

-- name: notify
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_notify(:channel, :hint);

-- name: time
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- name: identity
-- Of these tables, here: a copy beside them, or on another server of the same host, is another one.
SELECT value || '-' || current_setting('port') || '-' || md5(current_database()) FROM oncue_counter
WHERE name = 'identity';

-- name: ping
INSERT INTO oncue_counter (name, value) VALUES ('ping', 1)
ON CONFLICT (name) DO UPDATE SET value = oncue_counter.value + 1;
