-- task_expire: removes tasks that ended long ago, with their items, a few at a time.
with gone as (
    select t.number from tidings.task t
    where t.finished_at < clock_timestamp() - make_interval(secs => $1) order by t.finished_at limit $2 for update skip locked
), items as (
    delete from tidings.task_item i using gone where i.task = gone.number
)
delete from tidings.task t using gone where t.number = gone.number
returning 1
