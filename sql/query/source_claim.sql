-- source_claim: renews the lease of a reader, and gives it its share of the sources.
select c.total, c.share, c.sources from tidings.source_claim($1, $2, $3, $4, $5) c
