-- presence_write: the sessions that came, changed or went, many at a time; who joined or left watched topics.
select user_id, topic, joined from tidings.presence_write($1, $2, $3, $4, $5, $6, $7, $8)
