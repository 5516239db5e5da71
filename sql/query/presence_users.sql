-- presence_users: who has sessions, everywhere or on one topic, by name; a page begins after a user.
select p.user_id, count(*), (extract(epoch from min(p.since)) * 1000)::bigint, array_agg(distinct r.name)
from tidings.presence p join tidings.replica r on r.id = p.replica and r.until > clock_timestamp()
where ($1::text is null or $1 = any (p.topics)
    or exists (select from unnest(p.topics) t(pattern) where right(t.pattern, 1) = '*' and starts_with($1, left(t.pattern, -1))))
  and ($2::text is null or p.user_id > $2)
group by p.user_id order by p.user_id limit $3
