-- What comes in: updates, the people behind them, their messages.

-- name: channel_heard
INSERT INTO oncue_channel (name, heard_at) VALUES (:channel, :now)
ON CONFLICT (name) DO UPDATE SET heard_at = coalesce(max(heard_at, excluded.heard_at), excluded.heard_at);

-- name: intake_runs
-- After a gap (or a clock that was set) it runs since now; another process of the same channel may fill gaps.
INSERT INTO oncue_channel (name, up_since, seen_at) VALUES (:channel, :now, :now)
ON CONFLICT (name) DO UPDATE SET
  up_since = CASE WHEN seen_at BETWEEN :now - :gap AND :now + :gap THEN coalesce(up_since, :now) ELSE :now END,
  seen_at = CASE WHEN seen_at BETWEEN :now AND :now + :gap THEN seen_at ELSE :now END;

-- name: add_update
INSERT INTO oncue_update (channel, raw, heard_at, note, expires_at) VALUES (:channel, :raw, :now, :note, :expires_at)
RETURNING id;

-- name: raw_update
SELECT raw FROM oncue_update WHERE id = :id AND channel = :channel;

-- name: lock_names
-- Nobody else writes now.
SELECT 0;

-- name: find_people
SELECT json_group_array(json_object(
  'id', id, 'channel', channel, 'created_at', created_at, 'address', address, 'user_id', user_id, 'name', name,
  'timezone', timezone, 'heard_at', heard_at, 'opted_out_at', opted_out_at, 'no_marketing_at', no_marketing_at,
  'stopped', stopped, 'human_since', human_since, 'wait_until', wait_until, 'refusals', refusals))
FROM oncue_person WHERE id IN (
  SELECT id FROM oncue_person WHERE channel = :channel AND address IN (SELECT value FROM json_each(:addresses))
  UNION
  SELECT id FROM oncue_person WHERE channel = :channel AND user_id IN (SELECT value FROM json_each(:user_ids)));

-- name: person_by_id
SELECT json_object(
  'id', id, 'channel', channel, 'created_at', created_at, 'address', address, 'user_id', user_id, 'name', name,
  'timezone', timezone, 'heard_at', heard_at, 'opted_out_at', opted_out_at, 'no_marketing_at', no_marketing_at,
  'stopped', stopped, 'human_since', human_since, 'wait_until', wait_until, 'refusals', refusals)
FROM oncue_person WHERE id = :id;

-- name: add_person
INSERT INTO oncue_person (channel, address, user_id, name, created_at)
VALUES (:channel, :address, :user_id, :name, :now)
RETURNING id;

-- name: set_names
-- Without a time the person was named, but did not write.
UPDATE oncue_person SET address = :address, user_id = :user_id,
  heard_at = coalesce(max(heard_at, :at), heard_at, :at)
WHERE id = :id;

-- name: person_heard
UPDATE oncue_person SET
  name = CASE WHEN name IS NULL OR coalesce(heard_at, 0) <= :at THEN coalesce(:name, name) ELSE name END,
  heard_at = coalesce(max(heard_at, :at), heard_at, :at)
WHERE id = :id;

-- name: set_opted_out
UPDATE oncue_person SET opted_out_at = :at WHERE id = :id;

-- name: set_no_marketing
UPDATE oncue_person SET no_marketing_at = :at WHERE id = :id;

-- name: clear_stopped
UPDATE oncue_person SET stopped = NULL WHERE id = :id AND stopped IS NOT NULL;

-- name: hold_people
-- Nobody else writes now.
SELECT 0;

-- name: set_person
-- What is left of two people who turned out to be one.
UPDATE oncue_person SET address = :address, user_id = :user_id, name = :name, timezone = :timezone,
  heard_at = :heard_at, opted_out_at = :opted_out_at, no_marketing_at = :no_marketing_at, stopped = :stopped,
  human_since = :human_since, wait_until = :wait_until, refusals = :refusals, created_at = :created_at
WHERE id = :id;

-- name: drop_person
DELETE FROM oncue_person WHERE id = :id;

-- name: live_chats_of
SELECT json_group_array(json_array(id, person, changed_at)) FROM oncue_chat
WHERE person IN (:first, :second) AND state IN ('active', 'paused', 'parked');

-- name: stop_chat
UPDATE oncue_chat SET state = 'stopped', reason = :reason, version = version + 1, changed_at = :now, ended_at = :now,
  expires_at = :expires_at
WHERE id = :id AND state IN ('active', 'paused', 'parked');

-- name: repoint_chats
UPDATE oncue_chat SET person = :to WHERE person = :from;

-- name: repoint_messages
UPDATE oncue_message SET person = :to WHERE person = :from;

-- name: repoint_inbound
UPDATE oncue_inbound SET person = :to WHERE person = :from;

-- name: repoint_events
UPDATE oncue_event SET person = :to WHERE person = :from;

-- name: add_inbound
INSERT INTO oncue_inbound (channel, external_id, person, kind, content, sent_at, heard_at)
SELECT :channel, value->>0, value->>1, value->>2, value->>3, value->>4, :now FROM json_each(:rows) WHERE true
ON CONFLICT (channel, external_id) DO NOTHING;

-- name: open_inbound
SELECT json_group_array(json_array(external_id, person)) FROM oncue_inbound
WHERE channel = :channel AND external_id IN (SELECT value FROM json_each(:ids)) AND handled_at IS NULL;

-- name: open_inbound_of
SELECT json_group_array(external_id) FROM oncue_inbound
WHERE person = :person AND handled_at IS NULL;

-- name: move_inbound
UPDATE oncue_inbound SET person = :person
WHERE channel = :channel AND external_id = :external_id AND handled_at IS NULL;

-- name: note_inbound
UPDATE oncue_inbound SET handled_at = :now, note = :note
WHERE channel = :channel AND external_id = :external_id AND handled_at IS NULL;

-- name: texts_since
SELECT json_group_array(content) FROM (
  SELECT content FROM oncue_inbound WHERE person = :person AND kind = 'text' AND sent_at > :at
  ORDER BY heard_at DESC LIMIT :count);

-- name: open_question
-- The question that a person's conversation waits at, with when it was accepted first (or else: began to be sent).
SELECT json_array(m.ref, m.external_id, coalesce(
  (SELECT min(at) FROM oncue_sent WHERE message = m.id),
  CASE WHEN m.state = 'accepted' THEN m.settled_at WHEN m.state IN ('sending', 'unknown') THEN m.sending_at END))
FROM oncue_chat AS c
JOIN oncue_chat_step AS s ON s.chat = c.id AND s.name = c.step AND s.kind = 'ask' AND s.state = 'open'
JOIN oncue_message AS m ON m.id = s.message
WHERE c.person = :person AND c.state IN ('active', 'paused', 'parked');

-- name: inbox_event
INSERT INTO oncue_event (person, at, kind, text) VALUES (:person, :at, :kind, :text);

-- name: preference_event
-- Once, however often it is heard.
INSERT INTO oncue_event (person, at, kind, text)
SELECT :person, :at, 'marketing', :text WHERE NOT EXISTS (
  SELECT 1 FROM oncue_event WHERE person = :person AND at = :at AND kind = 'marketing' AND text = :text);

-- name: last_preference
-- Of two of one second the refusal counts.
SELECT json_array(at, max(text = :no)) FROM oncue_event
WHERE person = :person AND kind = 'marketing'
  AND at = (SELECT max(at) FROM oncue_event WHERE person = :person AND kind = 'marketing')
GROUP BY at;

-- name: prunable_chats
SELECT (EXISTS (SELECT 1 FROM oncue_update WHERE expires_at <= :now AND channel = :channel)
  OR EXISTS (SELECT 1 FROM oncue_chat WHERE expires_at <= :now AND channel = :channel AND state IN ('done', 'stopped'))
  OR EXISTS (SELECT 1 FROM oncue_message WHERE expires_at <= :now AND channel = :channel
             AND state IN ('accepted', 'rejected', 'skipped'))
  OR EXISTS (SELECT 1 FROM oncue_status WHERE heard_at < :before AND channel = :channel)
  OR EXISTS (SELECT 1 FROM oncue_inbound WHERE heard_at < :before AND channel = :channel AND handled_at IS NOT NULL)
  OR EXISTS (SELECT 1 FROM (SELECT at FROM oncue_event ORDER BY id LIMIT 1) AS e WHERE at < :before));

-- name: prune_updates
DELETE FROM oncue_update WHERE id IN (
  SELECT id FROM oncue_update WHERE expires_at <= :now AND channel = :channel LIMIT :count);

-- name: prune_statuses
DELETE FROM oncue_status WHERE (channel, external_id, status, at) IN (
  SELECT channel, external_id, status, at FROM oncue_status WHERE heard_at < :before AND channel = :channel
  LIMIT :count);

-- name: expired_chats
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_chat WHERE expires_at <= :now AND channel = :channel AND state IN ('done', 'stopped')
  LIMIT :count);

-- name: expired_messages
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_message
  WHERE expires_at <= :now AND channel = :channel AND state IN ('accepted', 'rejected', 'skipped')
  UNION
  SELECT id FROM oncue_message WHERE chat IN (SELECT value FROM json_each(:chats))
  LIMIT :count);

-- name: prune_sent
DELETE FROM oncue_sent WHERE message IN (SELECT value FROM json_each(:ids));

-- name: prune_message_statuses
DELETE FROM oncue_status WHERE message IN (SELECT value FROM json_each(:ids));

-- name: prune_messages
DELETE FROM oncue_message WHERE id IN (SELECT value FROM json_each(:ids));

-- name: prune_steps
DELETE FROM oncue_chat_step WHERE chat IN (SELECT value FROM json_each(:ids));

-- name: prune_chat_rows
DELETE FROM oncue_chat WHERE id IN (SELECT value FROM json_each(:ids))
  AND NOT EXISTS (SELECT 1 FROM oncue_message AS m WHERE m.chat = oncue_chat.id);

-- name: prune_inbound
DELETE FROM oncue_inbound WHERE (channel, external_id) IN (
  SELECT channel, external_id FROM oncue_inbound WHERE heard_at < :before AND channel = :channel
  AND handled_at IS NOT NULL LIMIT :count);

-- name: prune_events
-- Ids rise with the time at which events were stored: only the oldest are looked at.
DELETE FROM oncue_event WHERE id IN (
  SELECT e.id FROM (SELECT id, person, at FROM oncue_event ORDER BY id LIMIT :count) AS e
  LEFT JOIN oncue_person AS p ON p.id = e.person
  WHERE e.at < :before AND coalesce(p.channel, :channel) = :channel);
