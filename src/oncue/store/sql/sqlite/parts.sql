-- Parts of named queries, which stand there by their names in braces.

-- name: lane
-- Each queue and priority in which something waits, one look into the index each.
lane (queue, priority) AS (
  SELECT * FROM (SELECT queue, priority FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
                 ORDER BY queue, priority LIMIT 1)
  UNION ALL
  SELECT j.queue, j.priority FROM lane, oncue_job AS j
  WHERE j.id = coalesce(
    (SELECT id FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
     AND queue = lane.queue AND priority > lane.priority ORDER BY priority LIMIT 1),
    (SELECT id FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
     AND queue > lane.queue ORDER BY queue, priority LIMIT 1))
);

-- name: first_due
-- Where a job is moved: it remembers when it was due at first, until an attempt does.
first_due = CASE WHEN attempt = 0 THEN coalesce(first_due, scheduled_at) ELSE first_due END;
