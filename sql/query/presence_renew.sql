-- presence_renew: the lease of a replica and all its sessions, once an interval; how many of them are known, and whether those of others ran out.
select known, lapsed from tidings.presence_renew($1, $2, $3, $4)
