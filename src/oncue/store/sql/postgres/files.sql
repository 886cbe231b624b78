-- All that is kept of one person: to show it, to hand it over, to erase it. In the same order in every dialect.

-- name: people_named
-- Of all channels where none is given. Names of people are no names for a person: two may have the same.
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  id, channel, created_at, address, user_id, name, timezone, heard_at, opted_out_at, no_marketing_at, stopped,
  human_since, wait_until, refusals
  FROM oncue_person WHERE (:channel::text IS NULL OR channel = :channel::text)
  AND (address = :name::text OR user_id = :name::text OR 'p' || id = :name::text)
  ORDER BY id) AS f;

-- name: file_person
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  id, channel, created_at, address, user_id, name, timezone, heard_at, opted_out_at, no_marketing_at, stopped,
  human_since, wait_until, refusals
  FROM oncue_person WHERE id = :person::bigint
  ORDER BY id) AS f;

-- name: file_chats
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  id, conversation, channel, person, state, version, started_at, changed_at, step, tries, reason, error, ended_at
  FROM oncue_chat WHERE person = :person::bigint
  ORDER BY id) AS f;

-- name: file_steps
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  chat, name, nth, kind, state, opened_at, shape, value, message, done_at
  FROM oncue_chat_step WHERE chat IN (SELECT id FROM oncue_chat WHERE person = :person::bigint)
  ORDER BY chat, nth) AS f;

-- name: file_messages
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  id, ref, channel, person, kind, content, state, due, created_at, chat, step, nth, fallback, options, attempt,
  sending_at, unknown_at, settled_at, external_id, as_template, status, status_at, code, reason, resolution, resent
  FROM oncue_message WHERE person = :person::bigint
  ORDER BY id) AS f;

-- name: file_sent
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  channel, external_id, message, attempt, at
  FROM oncue_sent WHERE message IN (SELECT id FROM oncue_message WHERE person = :person::bigint)
  ORDER BY at, external_id) AS f;

-- name: file_statuses
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  channel, external_id, status, at, echo, message, code, reason, heard_at
  FROM oncue_status WHERE message IN (SELECT id FROM oncue_message WHERE person = :person::bigint)
  ORDER BY heard_at, at, external_id) AS f;

-- name: file_inbound
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  channel, external_id, person, kind, content, sent_at, heard_at, chat, step, handled_at, note
  FROM oncue_inbound WHERE person = :person::bigint
  ORDER BY heard_at, external_id) AS f;

-- name: file_events
SELECT coalesce(json_agg(f), '[]')::text FROM (SELECT
  id, person, chat, message, at, kind, text
  FROM oncue_event WHERE person = :person::bigint
  ORDER BY at, id) AS f;

-- name: erase_statuses
DELETE FROM oncue_status WHERE message IN (SELECT id FROM oncue_message WHERE person = :person::bigint);

-- name: erase_sent
DELETE FROM oncue_sent WHERE message IN (SELECT id FROM oncue_message WHERE person = :person::bigint);

-- name: erase_messages
DELETE FROM oncue_message WHERE person = :person::bigint;

-- name: erase_inbound
DELETE FROM oncue_inbound WHERE person = :person::bigint;

-- name: erase_steps
DELETE FROM oncue_chat_step WHERE chat IN (SELECT id FROM oncue_chat WHERE person = :person::bigint);

-- name: erase_chats
DELETE FROM oncue_chat WHERE person = :person::bigint;

-- name: erase_events
DELETE FROM oncue_event WHERE person = :person::bigint;

-- name: erase_person
DELETE FROM oncue_person WHERE id = :person::bigint;

-- name: erase_updates
DELETE FROM oncue_update WHERE channel = :channel::text AND heard_at < :before::bigint
  AND EXISTS (SELECT 1 FROM json_array_elements_text(:names::json) AS n WHERE position(n IN raw) > 0);

-- name: expire_updates
UPDATE oncue_update SET expires_at = :at::bigint WHERE channel = :channel::text AND heard_at >= :before::bigint
  AND coalesce(expires_at > :at::bigint, true)
  AND EXISTS (SELECT 1 FROM json_array_elements_text(:names::json) AS n WHERE position(n IN raw) > 0);
