-- partition_drop: drops a partition that partition_expire has marked; makes readers wait for 200 ms at most.
select tidings.partition_drop($1)
