-- inbox_due: claims what was sent and never acknowledged, of users who are connected here.
select user_id, id, sending, topic, seq, at_ms, expires_ms, priority, said from tidings.inbox_due($1, $2, $3, $4, $5)
