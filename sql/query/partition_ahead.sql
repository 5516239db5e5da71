-- partition_ahead: makes the next partition while the current one still has room.
select tidings.partition_ahead()
