-- message_mark: what stands at a seq, to see whether the log still is the one that was read.
select (extract(epoch from at) * 1000)::bigint, topic from tidings.message where seq = $1
