-- writer_last: after a broken connection, whether the lane's last batch was committed, and what came of it.
select batch, epoch, (extract(epoch from at) * 1000)::bigint, first_seq, fresh, seqs, duplicates
from tidings.writer where slot = $1 and fence = $2
