-- task_announce: tells every replica what was said of tasks, once it is durable, and that there is something to do.
select set_config('synchronous_commit', 'off', true), pg_notify('tidings', payload)::text from unnest($1::text[]) payload
