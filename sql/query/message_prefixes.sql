-- message_prefixes: the messages of a window of the log that match topics or prefixes; the window bounds what is read for them.
-- Where the log begins is read by the same statement: a partition that was dropped before it cannot be missed unnoticed.
select l.kept_from, p.* from tidings.log l left join (
    select seq, at_ms, expires_ms, class, priority, topic, kind, key, data, trace from (
        select seq, (extract(epoch from at) * 1000)::bigint as at_ms, (extract(epoch from expires_at) * 1000)::bigint as expires_ms,
            class, priority, topic, kind, key, data, trace,
            sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
        from (
            select * from tidings.message m
            where m.seq > $1 and m.seq <= $2
              and (m.topic = any ($5::text[]) or exists (select from unnest($6::text[]) p(prefix) where starts_with(m.topic, p.prefix)))
              and (m.expires_at is null or m.expires_at > clock_timestamp())
            order by m.seq limit $3
        ) page
    ) sized
    where bytes_before < $4
) p on true order by p.seq
