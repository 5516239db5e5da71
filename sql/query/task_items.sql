-- task_items: the items of a task in their order; a page begins after an item. Unfinished ones are pending or in hand.
select s.name, s.data, s.status, s.error, s.attempt, s.finished_ms from (
    select i.position, i.name, i.data, i.error, i.attempt, (extract(epoch from i.finished_at) * 1000)::bigint as finished_ms,
        case when i.status = 'pending' and i.name = any (t.in_flight) then 'running' else i.status end as status, i.status = 'pending' as is_unfinished
    from tidings.task t join tidings.task_item i on i.task = t.number
    where t.id = $1
      and i.position > coalesce((select a.position from tidings.task_item a where a.task = t.number and a.name = $3), 0)
) s
where $2::text is null or s.status = $2 or ($2 = 'unfinished' and s.is_unfinished)
order by s.position limit $4
