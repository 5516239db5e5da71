# Everything that one does with Tidings. `make` alone says what there is.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo run test soak unit lint fmt check clean

help: ## Says what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Three replicas over one Postgres, with addresses and what to try; Ctrl-C ends it
	$(CARGO) run --release --quiet -- demo

run: ## One replica in memory at http://127.0.0.1:8080
	$(CARGO) run -- serve

test: ## Every test; finds or makes its own Postgres
	$(CARGO) test

soak: ## The simulation with new seeds for TIDINGS_SOAK_S seconds (1800)
	$(CARGO) test --test sim -- --ignored --nocapture soak

unit: ## The tests that need no Postgres
	$(CARGO) test --lib --test tidy

lint: ## Format and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

fmt: ## Formats the code
	$(CARGO) fmt

check: lint test ## What must be green before a commit

clean: ## Removes what was built
	$(CARGO) clean
