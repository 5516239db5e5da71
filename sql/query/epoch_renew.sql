-- epoch_renew: the log no longer continues what was read from it; cursors of its old life are reset.
select tidings.epoch_renew($1)
