# SPDX-License-Identifier: GPL-2.0
# Two commands matter: make demo and make check. make help lists the rest.

HOURS ?= 1

.PHONY: help deps module deb unit lint check check-cluster check-debug soak bench bench-quick demo clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

deps: ## install what building and testing need (as root)
	@scripts/deps

module: deps ## build the kernel module for Debian's 6.1 and 6.12 kernels
	@for headers in /usr/src/linux-headers-6.1.*-amd64 /usr/src/linux-headers-6.12*-amd64; do \
		scripts/build-module $$headers build/module/$${headers##*linux-headers-} -j$$(nproc) || exit 1; \
	done

deb: deps ## the three packages, in build/debs
	@scripts/build-debs

unit: deps ## unit tests, with sanitizers
	@scripts/check unit

lint: deps ## every static check (scripts/lint --quick: those that take seconds)
	@scripts/lint

check: deps ## every test that gates; one closing line, build/check/report.json
	@scripts/check

check-cluster: deps ## more: all that breaks on three nodes, one node, five nodes, the lab, the module alone (slow)
	@scripts/check cluster-all vms-all single five lab backplane uefi

check-debug: deps ## more: clang's analyzer; KUnit and the module's tests, and its backplane's with TLS, under KASAN, lockdep and kmemleak (slow)
	@scripts/check lint-deep kselftest-debug backplane-debug

soak: deps ## for HOURS=1: the fault matrix from a new seed, then as long simulated clusters; the fuzzers, 10 minutes each; each moment of a recorded workload
	@tests/cluster/matrix.py --minutes $$(($(HOURS) * 60)) --seed $$(date +%s)
	@scripts/sim $$(($(HOURS) * 3600)) $$(date +%s)
	@scripts/fuzz 600
	@SCRIBE_MOMENTS=10000 SCRIBE_SEED=$$(date +%s) scripts/check kselftest-6.1

bench: deps ## figures beside dm-linear's, dm-thin's, md's and DRBD's, on virtual nodes; build/bench/report.html
	@scripts/bench

bench-quick: deps ## fewer of them; fails where an operation takes more instructions than tests/bench/recorded.json allows
	@scripts/bench --quick

demo: deps ## the main job on three virtual nodes; build/demo/report.json
	@scripts/demo

clean: ## remove build/
	rm -rf build
