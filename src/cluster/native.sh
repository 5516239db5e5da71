# A Postgres made of the programs in $TIDINGS_BIN, kept in $TIDINGS_DIR.
data="$TIDINGS_DIR/data"
paused=""

do_init() {
    "$TIDINGS_BIN/initdb" -N -A trust -U postgres --encoding UTF8 --locale C -D "$data" &&
        printf '%s\n' "$TIDINGS_SETTINGS" >>"$data/postgresql.conf"
}

# Standard output goes to the server's log, so that no reader of ours waits for the server's end.
do_start() {
    "$TIDINGS_BIN/pg_ctl" start -w -t 60 -D "$data" -l "$TIDINGS_DIR/postgres.log" -o "-p $1"
}

do_stop() {
    do_resume
    "$TIDINGS_BIN/pg_ctl" stop -w -t 60 -m "$1" -D "$data"
}

do_pause() {
    paused="$paused $*"
    kill -STOP "$@"
}

# A process that was paused may be gone by now.
do_resume() {
    [ -z "$paused" ] || kill -CONT $paused 2>/dev/null
    paused=""
}

# The postmaster's number is read first: it is the last resort when pg_ctl does not get through.
remove() {
    trap '' TERM EXIT
    postmaster=""
    [ ! -f "$data/postmaster.pid" ] || read -r postmaster <"$data/postmaster.pid"
    if [ -n "$postmaster" ]; then
        do_resume
        "$TIDINGS_BIN/pg_ctl" stop -w -t 10 -m immediate -D "$data" >/dev/null 2>&1 ||
            kill -KILL "$postmaster" 2>/dev/null
    fi
    cd /
    rm -rf "$TIDINGS_DIR"
}
