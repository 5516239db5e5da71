#!/bin/sh
# Asks a replica of its own, in memory, whatever /openapi.json says that it takes, and whatever it
# says that it does not, and looks whether the answers are those that are told there.
#   TIDINGS_EXAMPLES  how many requests are made up for each operation and phase (30)
#   TIDINGS_SEED      what they are made of (1)
set -eu
cd "$(dirname "$0")/.."
version=4.32.5
tools=${XDG_CACHE_HOME:-$HOME/.cache}/tidings/schemathesis-$version
if [ ! -f "$tools/complete" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools" && "$tools/bin/pip" install -q "schemathesis==$version" && touch "$tools/complete"
fi
cargo build -q
work=$(mktemp -d)
# An admin who is a user too, and so has an inbox. Waits end soon.
export TIDINGS_JWT_SECRET=a-secret-for-schemathesis-alone-of-this-length
token=$(./target/debug/tidings token --sub schemathesis --role admin)
TIDINGS_LISTEN=127.0.0.1:0 TIDINGS_LONG_POLL_S_MAX=1 TIDINGS_LOG_FORMAT=json \
    ./target/debug/tidings serve 2>"$work/log" &
replica=$!
trap 'kill $replica 2>/dev/null || true; wait $replica 2>/dev/null || true; rm -rf "$work"' EXIT
tries=0
until address=$(sed -n 's/.*"listening".*"address":"\([^"]*\)".*/\1/p' "$work/log") && [ -n "$address" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat "$work/log"; exit 1; }
    sleep 0.1
done
# Not asked: streams, which have no end. Not checked: that whatever fits the schemas is taken, since
# bytes are counted and not characters, and a cursor is to be of this log; and that what was deleted
# is gone, since a notice that was recalled can still be looked at.
cd "$work"
"$tools/bin/schemathesis" run "http://$address/openapi.json" \
    --header "Authorization: Bearer $token" \
    --exclude-path /v1/sse --exclude-path /v1/ws \
    --checks all --exclude-checks positive_data_acceptance,use_after_free \
    --max-examples "${TIDINGS_EXAMPLES:-30}" --seed "${TIDINGS_SEED:-1}" --request-timeout 10 \
    --generation-database none --no-color "$@"
grep -q '"level":"ERROR"' log && { grep '"level":"ERROR"' log; exit 1; }
kill -0 $replica
