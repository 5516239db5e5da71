# Everything that one does with Tidings. `make` alone says what there is.

CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo run test unit soak simulate lint fmt check clean

help: ## Says what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Three replicas over one Postgres, with addresses and what to try; Ctrl-C ends it
	$(CARGO) run -- demo

run: ## One replica in memory at http://127.0.0.1:8080
	$(CARGO) run -- serve --dev

test: ## Every test; finds or makes its own Postgres
	$(CARGO) test

unit: ## The tests that need no Postgres
	$(CARGO) test --lib --test docs --test pages --test tidy

soak: ## Half an hour of faults under load (TIDINGS_SOAK_S, TIDINGS_SEED); prints what was lost
	TIDINGS_SOAK_S=$${TIDINGS_SOAK_S:-1800} $(CARGO) test --test it storm -- --nocapture

simulate: ## Half an hour of simulated faults, a new seed each (TIDINGS_SOAK_S); prints what failed
	$(CARGO) test --test sim -- --ignored --nocapture soak

lint: ## Format and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

fmt: ## Formats the code
	$(CARGO) fmt

check: lint test ## What must be green before a commit

clean: ## Removes what was built
	$(CARGO) clean
