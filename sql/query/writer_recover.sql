-- writer_recover: after a broken connection, shuts out what may still run on it, and tells what the lane committed last.
-- A transaction of the old fence either has this row already, then this waits for it, or will find that it lost it.
update tidings.writer set fence = fence + 1, used_at = clock_timestamp() where slot = $1 and replica = $2
returning fence, batch, epoch, (extract(epoch from at) * 1000)::bigint, first_seq, fresh, seqs, duplicates
