#!/bin/sh
# Run once by the image of Postgres, after sql/roles.sql: lets in who migrates and who serves.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set owner="$TIDINGS_OWNER_PASSWORD" --set service="$TIDINGS_SERVICE_PASSWORD" <<'SQL'
alter role tidings_owner password :'owner';
alter role tidings_service password :'service';
SQL
