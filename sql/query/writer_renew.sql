-- writer_renew: keeps an idle lane's slot from being given to another replica.
update tidings.writer set used_at = clock_timestamp() where slot = $1 and fence = $2
