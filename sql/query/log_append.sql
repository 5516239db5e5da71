-- log_append: a lane's next batch; its flush is awaited by log_barrier, after the lock of the log is free again.
select epoch, at_ms, first_seq, fresh, seqs, duplicates
from tidings.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
