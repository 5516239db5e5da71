-- log_head: where the log stands, and what the time is there; the safety tick, once a second.
select epoch, head, kept_from, (extract(epoch from clock_timestamp()) * 1000)::bigint from tidings.log
