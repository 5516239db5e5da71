-- signal_notify: signals are not kept; they ride in notifications of their own and are flushed by nobody.
select set_config('synchronous_commit', 'off', true), pg_notify('tidings', payload)::text from unnest($1::text[]) payload
