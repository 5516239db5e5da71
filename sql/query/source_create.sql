-- source_create: a new source, if the name is free and there is room; says whether the name was taken.
select c.made, c.known from tidings.source_create($1, $2, $3, $4, $5, $6, $7) c
