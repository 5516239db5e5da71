-- notice_send: a notice with its named recipients and its messages, once per idempotency key.
select id, duplicate, recipients, epoch, at_ms, first_seq, said
from tidings.notice_send($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
