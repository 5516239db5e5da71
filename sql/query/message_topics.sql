-- message_topics: the next messages of some topics; one index scan a topic, whatever lies between.
-- Where the log begins is read by the same statement: a partition that was dropped before it cannot be missed unnoticed.
select l.kept_from, p.* from tidings.log l left join (
    select seq, at_ms, expires_ms, class, priority, topic, kind, key, data from (
        select seq, (extract(epoch from at) * 1000)::bigint as at_ms, (extract(epoch from expires_at) * 1000)::bigint as expires_ms,
            class, priority, topic, kind, key, data,
            sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
        from (
            select m.* from unnest($5::text[]) wanted(topic)
            cross join lateral (
                select * from tidings.message m
                where m.topic = wanted.topic collate "C" and m.seq > $1 and m.seq <= $2
                  and (m.expires_at is null or m.expires_at > clock_timestamp())
                order by m.seq limit $3
            ) m
            order by m.seq limit $3
        ) page
    ) sized
    where bytes_before < $4
) p on true order by p.seq
