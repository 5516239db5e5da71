# Owns one private Postgres: does what it is told on stdin, answers each line with "ok" or
# "failed", and takes everything away when stdin ends, however the process at the other end died.
# The functions that it calls come from native.sh or docker.sh.
# A gone reader must not stop the cleaning up, and Ctrl-C is for the terminal's own group.
trap '' PIPE HUP INT
trap 'exit 0' TERM
trap 'remove' EXIT

while read -r command argument; do
    if "do_$command" $argument </dev/null >>"$TIDINGS_LOG_FILE" 2>&1; then
        echo ok
    else
        echo failed
    fi
done
