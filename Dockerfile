# The daemon with its sample pipelines. `docker build -t propulsiond .`; how to run it: deploy/README.md.
# Proved without an engine or a registry by deploy/image-check.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies, built around empty sources: this layer changes with the two files only.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && sed -n '/^\[\[bench\]\]/{n;s|^name = "\(.*\)"|benches/\1.rs|p}' Cargo.toml > benches/names \
    && xargs touch src/lib.rs < benches/names \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked

# Cargo goes by the time of a file, and these may be older than the empty ones. The folder becomes the volume's.
COPY src src
RUN touch src/lib.rs src/main.rs && cargo build --release --locked && mkdir -p /data/propulsiond


FROM debian:bookworm-slim AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="propulsiond" \
    org.opencontainers.image.description="Runs declarative, per-stream ordered reaction pipelines over event feeds" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="debian:bookworm-slim"

# What changes most comes last. A sample that was read is known by its inode, too: its layer must outlive new programs.
COPY LICENSE /usr/share/doc/propulsiond/
COPY config /etc/propulsiond/config
COPY pipelines /etc/propulsiond/pipelines
# The one folder that is written to, apart from /tmp; a new volume takes its owner over.
COPY --from=build --chown=65532:65532 /data/ /var/lib/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/propulsiond /usr/local/bin/

# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /etc/propulsiond
ENV PROPULSIOND__LISTEN=0.0.0.0:9464 PROPULSIOND__DATA_DIR=/var/lib/propulsiond
VOLUME /var/lib/propulsiond
EXPOSE 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["propulsiond", "health"]
# `pipelines` beside the settings is what it runs, unless `--config` says otherwise.
ENTRYPOINT ["propulsiond"]
