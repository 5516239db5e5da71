-- writer_look: who holds a slot that is no longer ours, or whether the log was set back to before it was.
select fence, replica, batch from tidings.writer where slot = $1
