-- partition_drop: drops it; gives up rather than make readers wait.
select tidings.partition_drop($1)
