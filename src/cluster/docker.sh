# A Postgres in a container named $TIDINGS_CONTAINER; its port is bound on loopback only.

# The image is fetched here, where there is time for it.
do_init() {
    docker image inspect "$TIDINGS_IMAGE" || docker pull "$TIDINGS_IMAGE"
}

# A container that exists was stopped before, and keeps its port.
# The server is asked over TCP: while the image prepares the data it answers on the socket only.
do_start() {
    if docker container inspect "$TIDINGS_CONTAINER"; then
        docker start "$TIDINGS_CONTAINER" || return 1
    elif ! docker run --detach --name "$TIDINGS_CONTAINER" --publish "127.0.0.1:$1:5432" \
        --env POSTGRES_HOST_AUTH_METHOD=trust "$TIDINGS_IMAGE" $TIDINGS_FLAGS; then
        docker rm --force --volumes "$TIDINGS_CONTAINER"
        return 1
    fi
    tries=0
    until docker exec "$TIDINGS_CONTAINER" pg_isready --host 127.0.0.1 --username postgres; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || return 1
        sleep 0.5
    done
}

do_stop() {
    do_resume
    case "$1" in
        fast) docker stop "$TIDINGS_CONTAINER" ;;
        *) docker kill "$TIDINGS_CONTAINER" ;;
    esac
}

do_pause() {
    docker pause "$TIDINGS_CONTAINER"
}

do_resume() {
    docker unpause "$TIDINGS_CONTAINER" || true
}

remove() {
    trap '' TERM EXIT
    docker rm --force --volumes "$TIDINGS_CONTAINER" >/dev/null 2>&1
    rm -rf "$TIDINGS_DIR"
}
