# Everything that one does with Tidings. `make` alone says what there is.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo run test js client images unit otel bench bench-growth bench-hot soak slow fleet outage simulate fuzz interface image lint fmt check release-check clean

help: ## Says what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Three replicas over one Postgres, with addresses and what to try; Ctrl-C ends it
	$(CARGO) run -- demo

run: ## One replica in memory at http://127.0.0.1:8080
	$(CARGO) run -- serve --dev

test: ## Every test; finds or makes its own Postgres, Node's packages and Chromium
	$(CARGO) test
	tests/js.sh

js: ## The client in Node and the console in Chromium
	$(CARGO) build
	tests/js.sh

client: ## Builds the JavaScript client, and gives it to the console
	tests/js.sh update

images: ## Pictures of every page of the console, light and dark, into docs/images
	$(CARGO) build
	tests/js.sh images

unit: ## The tests that need no Postgres
	$(CARGO) test --lib --test deploy --test docs --test pages --test tidy --test fuzz_smoke

# Apart from `test`: it builds everything once more.
otel: ## What a collector of OpenTelemetry sees, with the feature `otel`
	$(CARGO) test --features otel --test it -- spans:: trace::

bench: ## Tidings against its floors, a quarter of an hour; wants a quiet machine (BENCH: more arguments)
	$(CARGO) build --release --bin tidings --example stage
	target/release/examples/stage conduct $(BENCH)

bench-growth: ## The same with more replicas, topics, bytes and rows (BENCH: --log-rows-max 100000000)
	$(CARGO) build --release --bin tidings --example stage
	target/release/examples/stage conduct --growth --rounds 1 $(BENCH)

bench-hot: ## Micro-benchmarks of the hot paths
	$(CARGO) bench --bench hot

soak: ## Half an hour of faults under load (TIDINGS_SOAK_S, TIDINGS_SEED); prints what was lost
	TIDINGS_SOAK_S=$${TIDINGS_SOAK_S:-1800} $(CARGO) test --test it storm -- --nocapture

slow: ## What 200 stalled clients cost 200 healthy ones, in memory and in time; wants a quiet machine
	$(CARGO) test --release --test it slow::stalled_clients_cost_healthy -- --ignored --nocapture

fleet: ## What telemetry of 4,000 instances costs Postgres, in statements and rows, and how soon it is seen
	$(CARGO) test --test it -- telemetry::fleet telemetry::showing::a_session --nocapture

outage: ## What half a million updates weigh that cannot be written for ten minutes
	$(CARGO) test --test it telemetry::outage::what_a_whole_fleet -- --ignored --nocapture

simulate: ## Half an hour of simulated faults, a new seed each (TIDINGS_SOAK_S); prints what failed
	$(CARGO) test --test sim -- --ignored --nocapture soak

fuzz: ## Looks for input that breaks a promise, TIDINGS_FUZZ_S seconds for each of fuzz/targets
	@$(CARGO) fuzz --version >/dev/null 2>&1 && rustc +nightly --version >/dev/null 2>&1 || { echo \
		"make fuzz needs \`cargo install cargo-fuzz\`, \`rustup toolchain install nightly\` and a C++ compiler"; exit 1; }
	@set -e; for target in $$(ls fuzz/targets | sed 's/\.rs$$//'); do echo "== $$target"; \
		mkdir -p fuzz/target/found/$$target; \
		$(CARGO) +nightly fuzz run $$target fuzz/target/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$${TIDINGS_FUZZ_S:-60} -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1; \
	done

interface: ## Asks a replica whatever /openapi.json says (schemathesis of PyPI; TIDINGS_EXAMPLES, TIDINGS_SEED)
	tests/schemathesis.sh

image: ## The image of a replica, by the Docker engine
	docker build --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD) -t tidings .

lint: ## Format and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --features otel -- -D warnings

fmt: ## Formats the code
	$(CARGO) fmt

check: lint test ## What must be green before a commit

release-check: ## Licences, sources, known weaknesses, and a list of all that is in it (target/sbom)
	@$(CARGO) deny --version >/dev/null 2>&1 && $(CARGO) cyclonedx --version >/dev/null 2>&1 || { echo \
		"make release-check needs \`cargo install --locked cargo-deny cargo-cyclonedx\`"; exit 1; }
	$(CARGO) deny check licenses bans sources
	$(CARGO) cyclonedx --format json --spec-version 1.5 --override-filename tidings.cdx
	mkdir -p target/sbom && mv tidings.cdx.json target/sbom/
	$(CARGO) deny check advisories

clean: ## Removes what was built
	$(CARGO) clean
