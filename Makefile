# The two commands: `make demo` and `make test`. Each makes .venv when it is missing.
.PHONY: setup demo test check notebooks docs bench
OUT ?= out/demo

setup:
	@sh scripts/setup

demo: setup
	@.venv/bin/ctr demo --out $(OUT) --replace

check: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright

test: check
	@.venv/bin/python -m pytest -q -n 2 --dist loadfile $(ARGS)

# The site of docs/, in out/site: a warning is an error.
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# Each benchmark beside its control, small; `sh scripts/bench full` is docs/benchmarks.md.
bench: setup
	@sh scripts/bench small

notebooks: setup
	@.venv/bin/python scripts/notebooks.py out/notebooks
