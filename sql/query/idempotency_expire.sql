-- idempotency_expire: forgets keys that are too old, in small chunks.
delete from tidings.idempotency where key in (
    select i.key from tidings.idempotency i, tidings.log l
    where i.at < clock_timestamp() - make_interval(secs => l.idempotency_s) order by i.at limit $1 for update of i skip locked)
returning 1
