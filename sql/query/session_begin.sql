-- session_begin: the isolation that the statements rely on, where the database or the role has another default.
-- Otherwise nothing is set: through a pooler the connection may be somebody else's in a moment.
select set_config('default_transaction_isolation', 'read committed', false)
where current_setting('default_transaction_isolation') <> 'read committed'
