-- inbox_open: what users who come have missed, and their counts.
select place, unread, unconfirmed, as_of, left_out, id, sending, topic, seq, at_ms, expires_ms, priority, said
from tidings.inbox_open($1, $2, $3, $4)
