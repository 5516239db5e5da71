-- idempotency_expire: forgets keys that are too old, in small chunks; what is not too old is not looked at.
delete from tidings.idempotency where ctid = any (array(
    select i.ctid from tidings.idempotency i
    where i.at < now() - make_interval(secs => (select l.idempotency_s from tidings.log l))
    order by i.at limit $1 for update skip locked))
returning 1
