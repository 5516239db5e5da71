-- inbox_mark: lets receipts grow, many at a time, and says the counts of those who acted.
select user_id, unread, unconfirmed, as_of, is_said, epoch, at_ms, first_seq from tidings.inbox_mark($1, $2, $3, $4)
