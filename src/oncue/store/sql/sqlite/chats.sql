-- Conversations: their record, and what an operator asks of them. Named queries, in the same order in every dialect.

-- name: chat_by_id
SELECT json_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)
FROM oncue_chat WHERE id = :id;

-- name: lock_chat
-- As it is now, and as it stays until this transaction ends.
SELECT json_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)
FROM oncue_chat WHERE id = :id;

-- name: live_chat
SELECT json_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)
FROM oncue_chat WHERE person = :person AND state IN ('active', 'paused', 'parked');

-- name: chat_steps
SELECT json_group_array(json_object(
  'chat', chat, 'name', name, 'nth', nth, 'kind', kind, 'state', state, 'opened_at', opened_at, 'shape', shape,
  'value', value, 'message', message, 'done_at', done_at)) FROM (
  SELECT * FROM oncue_chat_step WHERE chat = :chat ORDER BY nth);

-- name: chat_step
SELECT json_object(
  'chat', chat, 'name', name, 'nth', nth, 'kind', kind, 'state', state, 'opened_at', opened_at, 'shape', shape,
  'value', value, 'message', message, 'done_at', done_at)
FROM oncue_chat_step WHERE chat = :chat AND name = :name;

-- name: chat_message
SELECT json_object(
  'id', id, 'ref', ref, 'channel', channel, 'person', person, 'kind', kind, 'content', content, 'state', state,
  'due', due, 'created_at', created_at, 'chat', chat, 'step', step, 'nth', nth, 'fallback', fallback, 'options',
  options, 'attempt', attempt, 'sending_at', sending_at, 'unknown_at', unknown_at, 'settled_at', settled_at,
  'external_id', external_id, 'as_template', as_template, 'status', status, 'status_at', status_at, 'code',
  code, 'reason', reason, 'resolution', resolution, 'resent', resent)
FROM oncue_message WHERE id = :id;

-- name: chat_of_message
-- Whose a message is, by its ref or its external id.
SELECT json_array(chat, step) FROM oncue_message
WHERE channel = :channel AND (ref = :name
  OR id = (SELECT message FROM oncue_sent WHERE channel = :channel AND external_id = :name));

-- name: chat_fragments
-- What was written at this step, and is no answer yet.
SELECT json_group_array(json_object(
  'channel', channel, 'external_id', external_id, 'person', person, 'kind', kind, 'content', content, 'sent_at',
  sent_at, 'heard_at', heard_at, 'chat', chat, 'step', step, 'handled_at', handled_at, 'note', note)) FROM (
  SELECT * FROM oncue_inbound WHERE chat = :chat AND step = :step AND note IS NULL
  ORDER BY heard_at, sent_at, external_id);

-- name: chat_inbound_heard
SELECT heard_at FROM oncue_inbound WHERE channel = :channel AND external_id = :external_id;

-- name: chat_last_inbound
SELECT external_id FROM oncue_inbound WHERE person = :person
ORDER BY heard_at DESC, sent_at DESC LIMIT 1;

-- name: step_messages
-- The messages of a step, in the order in which they were made.
SELECT json_group_array(json_object(
  'id', id, 'ref', ref, 'channel', channel, 'person', person, 'kind', kind, 'content', content, 'state', state,
  'due', due, 'created_at', created_at, 'chat', chat, 'step', step, 'nth', nth, 'fallback', fallback, 'options',
  options, 'attempt', attempt, 'sending_at', sending_at, 'unknown_at', unknown_at, 'settled_at', settled_at,
  'external_id', external_id, 'as_template', as_template, 'status', status, 'status_at', status_at, 'code',
  code, 'reason', reason, 'resolution', resolution, 'resent', resent))
FROM (SELECT * FROM oncue_message WHERE chat = :chat AND step = :step ORDER BY id) AS m;

-- name: add_chat
-- Nothing where the person is in a conversation already.
INSERT INTO oncue_chat (conversation, channel, person, state, started_at, changed_at)
VALUES (:conversation, :channel, :person, 'active', :at, :now)
ON CONFLICT (person) WHERE state IN ('active', 'paused', 'parked') DO NOTHING
RETURNING id;

-- name: move_chat
-- Only as long as nobody else has moved it.
UPDATE oncue_chat SET version = version + 1, state = :state, step = :step, tries = :tries,
  reason = :reason, error = :error, changed_at = :now, ended_at = :ended_at,
  expires_at = :expires_at
WHERE id = :id AND version = :version;

-- name: save_step
INSERT INTO oncue_chat_step (chat, name, nth, kind, shape, state, value, message, opened_at, done_at)
VALUES (:chat, :name, :nth, :kind, :shape, :state,
  :value, :message, :opened_at, :done_at)
ON CONFLICT (chat, name) DO UPDATE SET state = excluded.state, value = excluded.value, message = excluded.message,
  shape = excluded.shape, opened_at = excluded.opened_at, done_at = excluded.done_at;

-- name: take_inbound
UPDATE oncue_inbound SET handled_at = :now, chat = :chat, step = :step, note = :note
WHERE channel = :channel AND external_id = :external_id AND handled_at IS NULL;

-- name: note_fragments
UPDATE oncue_inbound SET note = :note WHERE chat = :chat AND step = :step AND note IS NULL;

-- name: move_message
UPDATE oncue_message SET due = :due WHERE id = :id AND state = 'queued';

-- name: chat_event
INSERT INTO oncue_event (person, chat, message, at, kind, text)
VALUES (:person, :chat, :message, :at, :kind, :text);

-- name: set_human
UPDATE oncue_person SET human_since = :at WHERE id = :id;

-- name: set_timezone
UPDATE oncue_person SET timezone = :timezone WHERE id = :id;

-- name: list_chats
SELECT json_group_array(json_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version',
  version, 'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason,
  'error', error, 'ended_at', ended_at)) FROM (
  SELECT * FROM oncue_chat
  WHERE (:conversation IS NULL OR conversation = :conversation) AND (:state IS NULL OR state = :state)
    AND (:person IS NULL OR person = :person) AND (:channel IS NULL OR channel = :channel) AND id < :before
  ORDER BY id DESC LIMIT :count);

-- name: count_chats
SELECT json_group_array(json_array(conversation, state, number)) FROM (
  SELECT conversation, state, count(*) AS number FROM oncue_chat GROUP BY conversation, state
  ORDER BY conversation, state);

-- name: list_channels
-- What the provider says it did not deliver is no copy of a message.
WITH twice AS (SELECT message FROM oncue_sent GROUP BY message HAVING count(*) > 1),
doubled AS (
  SELECT s.channel, s.message FROM twice AS t JOIN oncue_sent AS s ON s.message = t.message
  WHERE coalesce((SELECT max(CASE f.status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END)
    FROM oncue_status AS f WHERE f.channel = s.channel AND f.external_id = s.external_id), 0) <> 1
  GROUP BY s.channel, s.message HAVING count(*) > 1)
SELECT json_group_array(json_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled,
  'paused_at', (SELECT q.paused_at FROM oncue_queue AS q WHERE q.name = c.name || '.send' AND q.paused = 1),
  'unknown', (SELECT count(*) FROM oncue_message AS m
    WHERE m.channel = c.name AND m.state = 'unknown' AND m.settled_at IS NULL),
  'duplicates', (SELECT count(*) FROM doubled AS d WHERE d.channel = c.name)))
FROM (SELECT * FROM oncue_channel ORDER BY name) AS c;

-- name: chat_duplicates
SELECT count(*) FROM (
  SELECT s.message FROM oncue_message AS m JOIN oncue_sent AS s ON s.message = m.id
  WHERE m.chat = :chat AND coalesce((SELECT max(CASE f.status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END)
    FROM oncue_status AS f WHERE f.channel = s.channel AND f.external_id = s.external_id), 0) <> 1
  GROUP BY s.message HAVING count(*) > 1) AS d;

-- name: chats_standing_still
SELECT json_group_array(json_object(
  'state', n.state, 'number', n.number, 'first', n.first, 'last', c.id, 'conversation', c.conversation, 'step', c.step,
  'reason', c.reason))
FROM (
  SELECT state, count(*) AS number, min(changed_at) AS first FROM oncue_chat WHERE state IN ('paused', 'parked')
  GROUP BY state) AS n
JOIN oncue_chat AS c ON c.id = (
  SELECT id FROM oncue_chat WHERE state = n.state ORDER BY changed_at DESC, id DESC LIMIT 1);

-- name: channels_now
-- As list_channels, without what takes long to count.
SELECT json_group_array(json_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled,
  'paused_at', (SELECT q.paused_at FROM oncue_queue AS q WHERE q.name = c.name || '.send' AND q.paused = 1),
  'unknown', coalesce(m.number, 0), 'unknown_since', m.first))
FROM (SELECT * FROM oncue_channel ORDER BY name) AS c
LEFT JOIN (
  SELECT channel, count(*) AS number, min(unknown_at) AS first FROM oncue_message
  WHERE state IN ('queued', 'sending', 'unknown') AND state = 'unknown' AND settled_at IS NULL
  GROUP BY channel) AS m ON m.channel = c.name;
