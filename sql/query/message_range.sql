-- message_range: every message of a range, to fill what a replica missed; a page of at least one and at most so many bytes.
-- Where the log begins is read by the same statement: a partition that was dropped before it cannot be missed unnoticed.
select l.kept_from, p.* from tidings.log l left join (
    select seq, at_ms, expires_ms, class, priority, topic, kind, key, data, trace from (
        select seq, (extract(epoch from at) * 1000)::bigint as at_ms, (extract(epoch from expires_at) * 1000)::bigint as expires_ms,
            class, priority, topic, kind, key, data, trace,
            sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
        from (select * from tidings.message where seq > $1 and seq <= $2 order by seq limit $3) page
    ) sized
    where bytes_before < $4
) p on true order by p.seq
