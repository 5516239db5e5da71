-- log_barrier: returns when everything committed before it is durable (and confirmed by synchronous standbys).
select set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'tidings', '')::text
