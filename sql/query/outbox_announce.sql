-- outbox_announce: tells every replica of a range that the relay has appended, once it is durable.
select set_config('synchronous_commit', 'off', true), pg_notify('tidings', $1)::text
