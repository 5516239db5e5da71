-- message_since: the place before the first message at or after a moment.
select tidings.seq_before(to_timestamp($1::bigint / 1000.0))
