#!/bin/sh
# The client in Node, and the console in Chromium, against the binary that cargo built.
# What is missing is installed where that can be; where it cannot, a line says what was skipped.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED: $1" >&2
    exit 0
}

have() { command -v "$1" >/dev/null 2>&1; }

debian() {
    have apt-get || return 1
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo -n"; fi
    echo "installing $* ..." >&2
    $sudo apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
        { $sudo apt-get update >/dev/null 2>&1 && $sudo apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1; }
}

modules() {
    # npm writes this file when all of it is there.
    if [ ! -e "$1/node_modules/.package-lock.json" ] || [ "$1/package-lock.json" -nt "$1/node_modules/.package-lock.json" ]; then
        (cd "$1" && npm ci --no-audit --no-fund --loglevel=error) || return 1
        touch "$1/node_modules/.package-lock.json"
    fi
}

have node && have npm || debian nodejs npm || skip "the tests in JavaScript need Node 20 and npm"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip "the tests in JavaScript need Node 20, and this is $(node --version)"
modules clients/js || skip "the packages of clients/js could not be fetched; is there a network?"

: "${TIDINGS_BIN:=$PWD/target/debug/tidings}"
export TIDINGS_BIN
[ -x "$TIDINGS_BIN" ] || { echo "$TIDINGS_BIN is not there: run \`cargo build\`, or \`make js\`" >&2; exit 1; }

websocket=""
node -e 'process.exit(typeof WebSocket === "undefined" ? 1 : 0)' || websocket="--experimental-websocket --disable-warning=ExperimentalWarning"

(cd clients/js && npm run --silent build)
if [ "${1:-}" = update ]; then
    cp clients/js/dist/tidings.js console/vendor/tidings.js
    echo "console/vendor/tidings.js is the client as it is now"
    exit 0
fi
[ "${1:-}" = images ] || (cd clients/js && node --test --test-reporter=spec $websocket test/*.test.mjs)

CHROMIUM="${CHROMIUM:-}"
for name in chromium chromium-browser google-chrome; do
    [ -n "$CHROMIUM" ] || CHROMIUM="$(command -v "$name" || true)"
done
[ -n "$CHROMIUM" ] || { debian chromium && CHROMIUM="$(command -v chromium || true)"; }
[ -n "$CHROMIUM" ] || skip "the tests of the console need Chromium: install it, or set CHROMIUM"
export CHROMIUM
modules tests/browser || skip "the packages of tests/browser could not be fetched; is there a network?"
if [ "${1:-}" = images ]; then
    cd tests/browser && exec node images.mjs
fi
cd tests/browser && exec node --test --test-reporter=spec --test-concurrency=1 *.test.mjs
