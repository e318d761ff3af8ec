# make setup   .venv from the lock, nothing else
# make demo    set-up, then the whole line on a made-up shop
# make desk    the same shop's pages, left open for a browser
# make test    set-up and Spark, then style, types and tests
# make check   style, types and the quick tests
# make fix     formats, and mends what can be mended
# make docs    the pages as a site in build/site; a broken link fails
# make catalogue the desk's words into its catalogues
# make results docs/results.md from the figures in docs/results; RUN="value churn" keeps those of these last runs first
PYTHON ?= python3
BIN := .venv/bin
UV := uv==0.13.9
# Where this is set, every process compiles every library anew, which is half the time of a start.
unexport PYTHONDONTWRITEBYTECODE
# Where the real data sets are that tests, benchmarks and the shipped configurations read.
export PERENNIAL_DATASETS ?= $(abspath ../shared/data)

.PHONY: setup demo desk test check fix docs results catalogue lock bench-value bench-purchase-models bench-scale bench-features bench-ablation bench-join bench-online bench-churn bench-cross-sell bench-desk bench-service bench-faults bench-growth bench-month bench-replay bench-drift

setup: .venv/.ready

# uv installs the lock in a tenth of pip's time; pip, with the same hashes, serves where uv cannot be had.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	( $(BIN)/pip install -q $(UV) && $(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock ) \
	  || $(BIN)/pip install -q --require-hashes -r requirements.lock
	! $(BIN)/pip show -q perennial 2>/dev/null || $(BIN)/pip uninstall -q -y perennial  # as it was called before
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/perennial demo

desk: setup
	$(BIN)/perennial demo --stay

# Spark is 400 MB: only the tests, and who asks for the extra `spark`, get it.
.venv/.spark: requirements-spark.lock .venv/.ready
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes -r requirements-spark.lock \
	  || $(BIN)/pip install -q --no-deps --require-hashes -r requirements-spark.lock
	touch $@

# Prefect asks for other versions than the lock's: its example has an environment of its own, which is 160 MB.
.venv/.prefect: requirements-prefect.lock .venv/.ready
	test -x .venv/prefect/bin/python || $(BIN)/python -m venv .venv/prefect
	$(BIN)/uv pip install -q --python .venv/prefect/bin/python --require-hashes -r requirements-prefect.lock \
	  || .venv/prefect/bin/pip install -q --require-hashes -r requirements-prefect.lock
	touch $@

test: setup .venv/.spark .venv/.prefect
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile $(QUICK)

# Folders and files that need no shop, and take seconds.
QUICK := tests/test_layout.py tests/test_docs.py tests/test_suite.py tests/workspace tests/pages tests/training/models \
  tests/training/backtests/test_metrics.py tests/training/backtests/test_choice.py tests/training/backtests/test_grade.py

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/mkdocs build --strict

results: setup
	$(BIN)/python -m benchmarks.results_page $(RUN)

# The desk's words, as they stand in the code, into its catalogues; what is not translated yet stays empty there.
catalogue: setup
	mkdir -p build
	$(BIN)/pybabel -q extract -F pages/locale/babel.cfg -k say -k count:1,2 -k _n:1,2 --no-location --omit-header \
	  --sort-output -o build/desk.pot .
	$(BIN)/pybabel -q update -i build/desk.pot -o pages/locale/zh.po -l zh_Hans_CN --no-fuzzy-matching \
	  --ignore-obsolete --ignore-pot-creation-date

# The lock's registry is the reader's own: no address stands in it.
lock:
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
	  --extra dev --extra redis --extra postgres --extra oidc --extra mcp pyproject.toml -o requirements.lock
	echo 'pyspark>=4.0' | $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --upgrade - -o requirements-spark.lock
	echo 'prefect>=3' | $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --upgrade - -o requirements-prefect.lock

bench-value: setup
	$(BIN)/python -W ignore -m benchmarks.value

bench-scale: setup
	$(BIN)/python -W ignore -m benchmarks.scale

# Makes environments of its own for lifetimes and pymc-marketing, under var/environments.
bench-purchase-models: setup
	$(BIN)/python -m benchmarks.purchase_models

bench-churn: setup
	$(BIN)/python -W ignore -m benchmarks.churn

bench-cross-sell: setup
	$(BIN)/python -W ignore -m benchmarks.cross_sell

# make bench-online CUSTOMERS=1000000
CUSTOMERS ?= 100000
bench-online: setup
	$(BIN)/python -W ignore -m benchmarks.online --customers $(CUSTOMERS)

bench-features: setup
	$(BIN)/python -m benchmarks.features --transactions 50000000 --customers 1000000 --cutoffs 12

bench-ablation: setup
	$(BIN)/python -m benchmarks.ablation

bench-join: setup
	$(BIN)/python -m benchmarks.training_join

# Needs wrk and redis-server: apt-get install wrk redis-server
bench-service: setup
	$(BIN)/python -W ignore -m benchmarks.service --customers $(CUSTOMERS)

# Needs Chromium: apt-get install chromium
bench-desk: setup
	$(BIN)/python -W ignore -m benchmarks.desk

bench-faults: setup
	$(BIN)/python -W ignore -m benchmarks.faults

bench-growth: setup
	$(BIN)/python -W ignore -m benchmarks.growth

bench-month: setup
	$(BIN)/python -W ignore -m benchmarks.month

bench-replay: setup
	$(BIN)/python -W ignore -m benchmarks.replay

bench-drift: setup
	$(BIN)/python -W ignore -m benchmarks.drift
