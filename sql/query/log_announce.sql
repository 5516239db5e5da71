-- log_announce: tells every replica of the lane's last batch, once it is durable.
select tidings.announce($1, $2, $3, $4, $5)
