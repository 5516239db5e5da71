-- task_items: the items of a task in their order; a page begins after an item. Unfinished ones are pending or in hand.
select i.name, i.data, case when i.status = 'pending' and i.name = any (t.in_flight) then 'running' else i.status end,
    i.error, i.attempt, (extract(epoch from i.finished_at) * 1000)::bigint
-- By the key of the items and no further than the page, however many the task has.
from (select o.number, o.in_flight from tidings.task o where o.id = $1) t, lateral (
    select * from tidings.task_item a
    where a.task = t.number
      and a.position > coalesce((select b.position from tidings.task_item b where b.task = t.number and b.name = $3), 0)
      and case
          when $2::text is null then true
          when $2 = 'unfinished' then a.status = 'pending'
          when $2 = 'running' then a.status = 'pending' and a.name = any (t.in_flight)
          when $2 = 'pending' then a.status = 'pending' and a.name <> all (t.in_flight)
          else a.status = $2
      end
    order by a.task, a.position limit $4
) i
order by i.position
