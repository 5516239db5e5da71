-- message_topics: the next messages of some topics; one index scan a topic, whatever lies between.
-- Where the log begins is read by the same statement: a partition that was dropped before it cannot be missed unnoticed.
select l.kept_from, p.* from tidings.log l left join (
    select seq, at_ms, expires_ms, class, priority, topic, kind, key, data, trace from (
        select seq, (extract(epoch from at) * 1000)::bigint as at_ms, (extract(epoch from expires_at) * 1000)::bigint as expires_ms,
            class, priority, topic, kind, key, data, trace,
            sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
        from (
            select m.* from (
                select next.seq from unnest($5::text[]) wanted(topic)
                cross join lateral tidings.topic_seqs(wanted.topic, $1, $2, $3) next(seq)
                order by next.seq limit $3
            ) due
            -- `offset 0` keeps it one look-up a row, where a join might read the whole table.
            cross join lateral (select * from tidings.message m where m.seq = due.seq offset 0) m
        ) page
    ) sized
    where bytes_before < $4
) p on true order by p.seq
