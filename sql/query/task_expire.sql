-- task_expire: removes tasks that ended long ago, with their items: as many as have so many items, and one at least.
with old as (
    select t.number, sum(t.total) over (order by t.finished_at, t.number) - t.total as items_before from (
        select o.number, o.total, o.finished_at from tidings.task o
        where o.finished_at < clock_timestamp() - make_interval(secs => $1) order by o.finished_at, o.number limit 1000
    ) t
), gone as (
    select t.number from tidings.task t
    where t.number in (select o.number from old o where o.items_before < $2::bigint)
      and t.finished_at < clock_timestamp() - make_interval(secs => $1)
    for update skip locked
), items as (
    delete from tidings.task_item i using gone where i.task = gone.number
)
delete from tidings.task t using gone where t.number = gone.number
returning 1
