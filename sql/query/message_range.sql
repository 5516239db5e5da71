-- message_range: every message of a range, to fill what a replica missed; a page of at least one and at most so many bytes.
select seq, at_ms, expires_ms, class, priority, topic, kind, key, data from (
    select seq, (extract(epoch from at) * 1000)::bigint as at_ms, (extract(epoch from expires_at) * 1000)::bigint as expires_ms,
        class, priority, topic, kind, key, data,
        sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
    from (select * from tidings.message where seq > $1 and seq <= $2 order by seq limit $3) page
) sized
where bytes_before < $4 order by seq
