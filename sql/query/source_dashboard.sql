-- source_dashboard: sources and instances by status, and each counter's growth, of these sources or of all.
with own as (select s.number, s.id, s.status from tidings.source s where $1::text[] is null or s.id = any ($1)),
counted as (
    select i.source, i.status, c.key, sum((c.value ->> 2)::numeric) as total
    from own join tidings.instance i on i.source = own.number
    cross join lateral jsonb_each(i.state -> 'counters') c
    group by 1, 2, 3)
select json_build_object(
    'sources', (select coalesce(json_object_agg(g.status, g.n), '{}') from (select o.status, count(*) as n from own o group by 1) g),
    'instances', (select coalesce(json_object_agg(g.status, g.n), '{}')
        from (select i.status, count(*) as n from own o join tidings.instance i on i.source = o.number group by 1) g),
    'counters', (select coalesce(json_object_agg(g.key, json_build_object('total', g.total::text, 'last_hour', g.hour::text)), '{}') from (
        select t.key, t.total, coalesce(h.hour, 0) as hour
        from (select c.key, sum(c.total) as total from counted c group by 1) t
        left join (
            select c.key, sum((c.value ->> 0)::numeric) as hour from (
                select r.counters from own o join tidings.rollup r on r.source = o.number
                    and r.level = 0 and r.at > clock_timestamp() - interval '1 hour'
                union all
                select p.value -> 'counters' from own o join tidings.instance i on i.source = o.number
                    cross join lateral jsonb_each(i.pending) p
            ) b cross join lateral jsonb_each(b.counters) c group by 1) h using (key)) g)
)::text
