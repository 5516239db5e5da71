-- outbox_relay: moves what committed transactions published to the log; one replica at a time.
select taken, epoch, first_seq, fresh, at_ms from tidings.outbox_relay($1, $2)
