# The only commands a user or a developer needs. Everything they use is installed into .venv.
.PHONY: demo test check chaos fuzz bench bench-setup clean

demo: ## the main job on real input, with nothing but Python, git and make
	@scripts/demo

test: ## lint, types, layers, and every test
	@scripts/check
	@scripts/test

check: ## lint, types, layers
	@scripts/check

chaos: ## kill a run at each of its writes, then five minutes of kills, cuts and restarts
	@scripts/chaos

fuzz: ## a million inputs to everything that reads text from outside
	@scripts/fuzz

bench: ## measure beside peers, and write the tables of docs/benchmarks.md
	@scripts/bench

bench-setup: ## the peers that the benchmarks compare with, each in a place of its own
	@scripts/bench-setup

clean:
	rm -rf .venv .batchq outputs .mypy_cache .ruff_cache .pytest_cache .hypothesis
