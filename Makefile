# Every target that builds does its own set-up first: xtask/setup.sh says what it installs.
.DEFAULT_GOAL := help
# The targets share one build folder, and the tests want the machine for themselves.
.NOTPARALLEL:
.PHONY: help setup xtask demo test check bench soak cluster kernels build image clean

# The packaged toolchain before any rustup on PATH; setup.sh says why and when not.
export PATH := $(shell xtask/setup.sh path)
CARGO := cargo
XTASK := $(CARGO) run -q -p xtask --
# Crates for the kernel's virtual machine, outside the workspace.
PROGRAMS := ebpf/programs bench/driver

help:
	@echo 'Headgate: a node'"'"'s network datapath under Git'
	@echo
	@echo '  make demo    two namespaces, real packets, a policy edited live (root)'
	@echo '  make test    every test; ends in "N passed, N failed, N skipped" (root)'
	@echo '  make check   format, lints, licences, dependency arrows, generated CRDs'
	@echo '  make bench   what a packet, a load and an edit cost (root)'
	@echo '  make soak    the tests that take long: hundreds of kills and replacements (root)'
	@echo '  make cluster the tests on nodes with containerd and kubelet that run the image (root)'
	@echo '  make kernels the kernel tests in Linux 6.1, 6.12 and 7.2 of Debian, emulated'
	@echo '  make build   the one binary, target/release/headgate'
	@echo '  make image   the image that clusters run, an OCI archive; no container engine is needed'
	@echo '  make setup   only install what the others need; they do it themselves'
	@echo '  make clean   remove what was built here; the cache folder stays'
	@echo
	@echo 'On Debian 12 or 13 as root each of them installs what is missing, and says what.'

setup:
	@xtask/setup.sh
	$(if $(filter setup,$(MAKECMDGOALS)),@echo 'Everything is there.')

# Says what is compiled; later runs of it are quiet.
xtask: setup
	@$(CARGO) build -p xtask

demo: xtask
	@$(XTASK) demo

test: xtask
	@$(XTASK) test

soak: xtask
	@$(XTASK) soak

cluster: xtask
	@$(XTASK) cluster

kernels: xtask
	@$(XTASK) kernels

bench: setup
	$(CARGO) run --release -p headgate-bench

build: setup
	$(CARGO) build --release --bin headgate

image: xtask
	@$(XTASK) image

check: xtask
	@xtask/setup.sh check
	$(CARGO) fmt --all --check
	@for folder in $(PROGRAMS); do (set -x; $(CARGO) fmt --manifest-path $$folder/Cargo.toml --check) || exit 1; done
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(XTASK) lint-programs $(PROGRAMS)
	$(XTASK) arrows
	$(XTASK) crds --check
	$(XTASK) argocd --check
	$(CARGO) deny check bans licenses sources
	@for folder in $(PROGRAMS); do (set -x; $(CARGO) deny --manifest-path $$folder/Cargo.toml \
	    --config deny.toml check -A license-not-encountered -A unmatched-skip bans licenses sources) || exit 1; done
	@echo 'Not checked: advisories. Their database is a git repository on the network; where that is reachable:'
	@echo '  $(CARGO) deny check advisories'

clean:
	rm -rf target $(PROGRAMS:%=%/target)
