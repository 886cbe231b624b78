-- Conversations: their record, and what an operator asks of them. Named queries, in the same order in every dialect.

-- name: chat_by_id
SELECT json_build_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)::text
FROM oncue_chat WHERE id = :id::bigint;

-- name: lock_chat
-- As it is now, and as it stays until this transaction ends.
SELECT json_build_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)::text
FROM oncue_chat WHERE id = :id::bigint
FOR UPDATE;

-- name: live_chat
SELECT json_build_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)::text
FROM oncue_chat WHERE person = :person::bigint AND state IN ('active', 'paused', 'parked');

-- name: chat_steps
SELECT coalesce(json_agg(json_build_object(
  'chat', chat, 'name', name, 'nth', nth, 'kind', kind, 'state', state, 'opened_at', opened_at, 'shape', shape,
  'value', value, 'message', message, 'done_at', done_at)), '[]')::text FROM (
  SELECT * FROM oncue_chat_step WHERE chat = :chat::bigint ORDER BY nth) AS n;

-- name: chat_step
SELECT json_build_object(
  'chat', chat, 'name', name, 'nth', nth, 'kind', kind, 'state', state, 'opened_at', opened_at, 'shape', shape,
  'value', value, 'message', message, 'done_at', done_at)::text
FROM oncue_chat_step WHERE chat = :chat::bigint AND name = :name::text;

-- name: chat_message
SELECT json_build_object(
  'id', id, 'ref', ref, 'channel', channel, 'person', person, 'kind', kind, 'content', content, 'state', state,
  'due', due, 'created_at', created_at, 'chat', chat, 'step', step, 'nth', nth, 'fallback', fallback, 'options',
  options, 'attempt', attempt, 'sending_at', sending_at, 'unknown_at', unknown_at, 'settled_at', settled_at,
  'external_id', external_id, 'as_template', as_template, 'status', status, 'status_at', status_at, 'code',
  code, 'reason', reason, 'resolution', resolution, 'resent', resent)::text
FROM oncue_message WHERE id = :id::bigint;

-- name: chat_of_message
-- Whose a message is, by its ref or its external id.
SELECT json_build_array(chat, step)::text FROM oncue_message
WHERE channel = :channel::text AND (ref = :name::text
  OR id = (SELECT message FROM oncue_sent WHERE channel = :channel::text AND external_id = :name::text));

-- name: chat_fragments
-- What was written at this step, and is no answer yet.
SELECT coalesce(json_agg(json_build_object(
  'channel', channel, 'external_id', external_id, 'person', person, 'kind', kind, 'content', content, 'sent_at',
  sent_at, 'heard_at', heard_at, 'chat', chat, 'step', step, 'handled_at', handled_at, 'note', note)), '[]')::text
FROM (
  SELECT * FROM oncue_inbound WHERE chat = :chat::bigint AND step = :step::text AND note IS NULL
  ORDER BY heard_at, sent_at, external_id) AS n;

-- name: chat_inbound_heard
SELECT heard_at FROM oncue_inbound WHERE channel = :channel::text AND external_id = :external_id::text;

-- name: chat_last_inbound
SELECT external_id FROM oncue_inbound WHERE person = :person::bigint
ORDER BY heard_at DESC, sent_at DESC LIMIT 1;

-- name: step_messages
-- The messages of a step, in the order in which they were made.
SELECT coalesce(json_agg(json_build_object(
  'id', id, 'ref', ref, 'channel', channel, 'person', person, 'kind', kind, 'content', content, 'state', state,
  'due', due, 'created_at', created_at, 'chat', chat, 'step', step, 'nth', nth, 'fallback', fallback, 'options',
  options, 'attempt', attempt, 'sending_at', sending_at, 'unknown_at', unknown_at, 'settled_at', settled_at,
  'external_id', external_id, 'as_template', as_template, 'status', status, 'status_at', status_at, 'code',
  code, 'reason', reason, 'resolution', resolution, 'resent', resent) ORDER BY id), '[]')::text
FROM oncue_message WHERE chat = :chat::bigint AND step = :step::text;

-- name: add_chat
-- Nothing where the person is in a conversation already.
INSERT INTO oncue_chat (conversation, channel, person, state, started_at, changed_at)
VALUES (:conversation::text, :channel::text, :person::bigint, 'active', :at::bigint, :now::bigint)
ON CONFLICT (person) WHERE state IN ('active', 'paused', 'parked') DO NOTHING
RETURNING id;

-- name: move_chat
-- Only as long as nobody else has moved it.
UPDATE oncue_chat SET version = version + 1, state = :state::text, step = :step::text, tries = :tries::bigint,
  reason = :reason::text, error = :error::text, changed_at = :now::bigint, ended_at = :ended_at::bigint,
  expires_at = :expires_at::bigint
WHERE id = :id::bigint AND version = :version::bigint;

-- name: save_step
INSERT INTO oncue_chat_step (chat, name, nth, kind, shape, state, value, message, opened_at, done_at)
VALUES (:chat::bigint, :name::text, :nth::bigint, :kind::text, :shape::text, :state::text,
  :value::text, :message::bigint, :opened_at::bigint, :done_at::bigint)
ON CONFLICT (chat, name) DO UPDATE SET state = excluded.state, value = excluded.value, message = excluded.message,
  shape = excluded.shape, opened_at = excluded.opened_at, done_at = excluded.done_at;

-- name: take_inbound
UPDATE oncue_inbound SET handled_at = :now::bigint, chat = :chat::bigint, step = :step::text, note = :note::text
WHERE channel = :channel::text AND external_id = :external_id::text AND handled_at IS NULL;

-- name: note_fragments
UPDATE oncue_inbound SET note = :note::text WHERE chat = :chat::bigint AND step = :step::text AND note IS NULL;

-- name: move_message
UPDATE oncue_message SET due = :due::bigint WHERE id = :id::bigint AND state = 'queued';

-- name: chat_event
INSERT INTO oncue_event (person, chat, message, at, kind, text)
VALUES (:person::bigint, :chat::bigint, :message::bigint, :at::bigint, :kind::text, :text::text);

-- name: set_human
UPDATE oncue_person SET human_since = :at::bigint WHERE id = :id::bigint;

-- name: set_timezone
UPDATE oncue_person SET timezone = :timezone::text WHERE id = :id::bigint;

-- name: list_chats
SELECT coalesce(json_agg(json_build_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)), '[]')::text FROM (
  SELECT * FROM oncue_chat
  WHERE (:conversation::text IS NULL OR conversation = :conversation::text)
    AND (:state::text IS NULL OR state = :state::text)
    AND (:person::bigint IS NULL OR person = :person::bigint) AND (:channel::text IS NULL OR channel = :channel::text)
    AND id < :before::bigint
  ORDER BY id DESC LIMIT :count::bigint) AS n;

-- name: count_chats
SELECT coalesce(json_agg(json_build_array(conversation, state, number)), '[]')::text FROM (
  SELECT conversation, state, count(*) AS number FROM oncue_chat GROUP BY conversation, state
  ORDER BY conversation, state) AS n;

-- name: list_channels
-- What the provider says it did not deliver is no copy of a message.
WITH twice AS (SELECT message FROM oncue_sent GROUP BY message HAVING count(*) > 1),
doubled AS (
  SELECT s.channel, s.message FROM twice AS t JOIN oncue_sent AS s ON s.message = t.message
  WHERE coalesce((SELECT max(CASE f.status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END)
    FROM oncue_status AS f WHERE f.channel = s.channel AND f.external_id = s.external_id), 0) <> 1
  GROUP BY s.channel, s.message HAVING count(*) > 1)
SELECT coalesce(json_agg(json_build_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled,
  'paused_at', (SELECT q.paused_at FROM oncue_queue AS q WHERE q.name = c.name || '.send' AND q.paused = 1),
  'unknown', (SELECT count(*) FROM oncue_message AS m
    WHERE m.channel = c.name AND m.state = 'unknown' AND m.settled_at IS NULL),
  'duplicates', (SELECT count(*) FROM doubled AS d WHERE d.channel = c.name))), '[]')::text
FROM (SELECT * FROM oncue_channel ORDER BY name) AS c;

-- name: chat_duplicates
SELECT count(*) FROM (
  SELECT s.message FROM oncue_message AS m JOIN oncue_sent AS s ON s.message = m.id
  WHERE m.chat = :chat::bigint AND coalesce((SELECT max(CASE f.status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END)
    FROM oncue_status AS f WHERE f.channel = s.channel AND f.external_id = s.external_id), 0) <> 1
  GROUP BY s.message HAVING count(*) > 1) AS d;

-- name: chats_standing_still
SELECT coalesce(json_agg(json_build_object(
  'state', n.state, 'number', n.number, 'first', n.first, 'last', c.id, 'conversation', c.conversation, 'step', c.step,
  'reason', c.reason)), '[]')::text
FROM (
  SELECT state, count(*) AS number, min(changed_at) AS first FROM oncue_chat WHERE state IN ('paused', 'parked')
  GROUP BY state) AS n
JOIN oncue_chat AS c ON c.id = (
  SELECT id FROM oncue_chat WHERE state = n.state ORDER BY changed_at DESC, id DESC LIMIT 1);

-- name: channels_now
-- As list_channels, without what takes long to count.
SELECT coalesce(json_agg(json_build_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled,
  'paused_at', (SELECT q.paused_at FROM oncue_queue AS q WHERE q.name = c.name || '.send' AND q.paused = 1),
  'unknown', coalesce(m.number, 0), 'unknown_since', m.first)), '[]')::text
FROM (SELECT * FROM oncue_channel ORDER BY name) AS c
LEFT JOIN (
  SELECT channel, count(*) AS number, min(unknown_at) AS first FROM oncue_message
  WHERE state IN ('queued', 'sending', 'unknown') AND state = 'unknown' AND settled_at IS NULL
  GROUP BY channel) AS m ON m.channel = c.name;
