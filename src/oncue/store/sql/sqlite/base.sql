-- Ids, and what is asked of the server itself.

-- name: take_ids
UPDATE oncue_counter SET value = value + :count WHERE name = :name RETURNING value;

-- name: ping
INSERT INTO oncue_counter (name, value) VALUES ('ping', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1;
