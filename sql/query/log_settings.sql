-- log_settings: what the functions in the database need to know of the settings.
update tidings.log set partition_rows = $1, data_bytes_max = $2, idempotency_s = $3
where (partition_rows, data_bytes_max, idempotency_s) is distinct from ($1, $2, $3)
