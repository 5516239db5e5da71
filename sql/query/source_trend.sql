-- source_trend: one metric over time: buckets from the roll-ups, and what waits to be added to them.
with own as (select s.number from tidings.source s where s.id = $1),
wanted as (
    select w.place, to_timestamp(w.first / 1000.0) as first, to_timestamp(w.next / 1000.0) as next
    from unnest($5::bigint[], $6::bigint[]) with ordinality w(first, next, place)),
span as (select min(w.first) as first, max(w.next) as next from wanted w),
found as (
    select r.at, r.counters -> $3 as growth, r.gauges -> $3 as course
    from own, span, tidings.rollup r
    where r.source = own.number and r.level = $4 and r.at >= span.first and r.at < span.next
      and ($2::text is null or r.instance = $2) and (r.counters ? $3 or r.gauges ? $3)
    union all
    select to_timestamp(p.key::bigint / 1000.0), p.value -> 'counters' -> $3, p.value -> 'gauges' -> $3
    from own, tidings.instance i, jsonb_each(i.pending) p
    where i.source = own.number and ($2::text is null or i.name = $2)
      and (p.value -> 'counters' ? $3 or p.value -> 'gauges' ? $3))
select w.place,
    sum((f.growth ->> 0)::numeric)::text, min((f.growth ->> 1)::numeric)::text, max((f.growth ->> 2)::numeric)::text,
    sum((f.growth ->> 3)::numeric)::bigint,
    -- Beyond all measure it stays at the most that there is.
    least(greatest(sum((f.course ->> 0)::numeric), -1.7976931348623157e308), 1.7976931348623157e308)::float8,
    min((f.course ->> 1)::float8), max((f.course ->> 2)::float8),
    sum((f.course ->> 3)::numeric)::bigint
from wanted w join found f on f.at >= w.first and f.at < w.next
group by w.place
