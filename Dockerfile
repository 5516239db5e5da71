# The image of a replica. `docker build -t tidings .`, or for both kinds of machine
# `docker buildx build --platform linux/amd64,linux/arm64 -t tidings .`: nothing here knows which one it is.
ARG RUST=docker.io/library/rust:1.95-slim-bookworm
# glibc, certificate authorities, no shell; its user 65532 owns nothing.
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
WORKDIR /build
# Names of functions stay, for backtraces; their lines are three quarters of the file.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Dependencies first, in a layer of their own: it is built anew only when they change.
COPY Cargo.toml Cargo.lock ./
# `--build-arg FEATURES=otel` for traces.
ARG FEATURES=""
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --features "${FEATURES}" \
    && rm -r src
COPY src src
COPY sql sql
COPY console console
# Cargo goes by times, and those of copied files may lie before the build above.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --features "${FEATURES}" --bin tidings

FROM ${RUNTIME}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tidings" \
      org.opencontainers.image.description="A durable realtime notifier that needs nothing but Postgres" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/target/release/tidings /usr/local/bin/tidings
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/tidings/
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# Inside a container loopback is nobody's; who may reach it is decided outside.
ENV TIDINGS_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Ready, not merely alive; it asks where the settings say that health is told.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/tidings", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tidings"]
CMD ["serve"]
