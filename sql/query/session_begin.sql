-- session_begin: what the statements rely on, where the database or the role has another default.
-- Otherwise nothing is set: through a pooler the connection may be somebody else's in a moment.
select set_config(name, value, false)
from (values ('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off')) wanted(name, value)
where current_setting(name) <> value
