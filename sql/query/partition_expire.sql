-- partition_expire: the oldest partition that is no longer kept, if there is one.
select tidings.partition_expire($1)
