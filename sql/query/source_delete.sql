-- source_delete: the source goes at once, what it left behind is swept up later.
with own as (delete from tidings.source s where s.id = $1 returning s.number)
insert into tidings.source_gone (number) select own.number from own returning number
