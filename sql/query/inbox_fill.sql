-- inbox_fill: rows for what was sent to everybody or to roles, before an inbox is read.
select tidings.inbox_fill($1, $2)
