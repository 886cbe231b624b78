-- Parts of named queries, which stand there by their names in braces.

-- name: lane
-- Each queue and priority in which something waits, one look into the index each.
lane (queue, priority) AS (
  (SELECT queue, priority FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
   ORDER BY queue, priority LIMIT 1)
  UNION ALL
  SELECT n.queue, n.priority FROM lane, LATERAL (
    SELECT j.queue, j.priority FROM oncue_job AS j WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL
    AND (j.queue, j.priority) > (lane.queue, lane.priority) ORDER BY j.queue, j.priority LIMIT 1) AS n
);

-- name: first_due
-- Where a job is moved: it remembers when it was due at first, until an attempt does.
first_due = CASE WHEN attempt = 0 THEN coalesce(first_due, scheduled_at) ELSE first_due END;
