# make run    the scheduler on this machine, or in the emulated lab machine where the kernel has no sched_ext
# make test   everything that must pass
# Both install what they need and say so. Other targets: make help.

STEP := packaging/step
RELEASE := target/release
# The scheduler replaces the kernel's, which takes root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help run run-here run-lab lab-built lab-kernel test test-full fuzz soak bench-lab bench-lab-smoke bench-lisa bench-cost bench-model format

help:
	@echo 'make run        schedule this machine; without sched_ext, the emulated lab machine'
	@echo 'make run-lab    the lab machine in any case: MACHINE=, WORKLOAD=, SEEDS= choose another run'
	@echo 'make test       everything that must pass'
	@echo 'make test-full  that, and what needs more time or more downloads'
	@echo 'make fuzz       every parser under ten million inputs: INPUTS= says how many'
	@echo 'make soak       storms of tasks and hotplug in the lab for half an hour and the rest of the last one: SECONDS='
	@echo 'make lab-kernel builds a kernel for the lab, with hwmon and timerlat; then: lab boot --kernel lab'
	@echo 'make bench-lab  energy of every scheduler, workload and machine: MACHINES=, WORKLOADS=, SCHEDULERS=, SEEDS='
	@echo 'make bench-lab-smoke  a corner of that table, in five minutes'
	@echo 'make bench-lisa judge seven behaviours of energy-aware scheduling in the lab, as LISA does: MACHINE='
	@echo 'make bench-cost what a wake-up costs under scx_joule and its peers, in instructions'
	@echo 'make bench-model how well the energy model learns synthetic machines: FOLDER= of machine files, SEEDS='
	@echo 'make format     format Rust and BPF sources'

run:
	@if [ -d /sys/kernel/sched_ext ]; then $(MAKE) --no-print-directory run-here; \
	else echo "This kernel ($$(uname -r)) has no sched_ext: the scheduler runs in an emulated machine instead."; \
	$(MAKE) --no-print-directory run-lab; fi

run-here:
	@packaging/debian-deps.sh build
	@$(STEP) build-run 'building scx_joule' cargo build --release --package scx_joule
	@echo 'This kernel has sched_ext: scheduling this machine until Ctrl-C.'
	$(AS_ROOT) $(RELEASE)/scx_joule --stats 5

# Whatever runs in the lab. The workload runner is built by itself: its features are then its own, and results that
# are kept under its hash stay known when another package's dependencies change.
lab-built:
	@packaging/debian-deps.sh build lab
	@$(STEP) build-run 'building scx_joule and its lab' cargo build --release --package scx_joule --package lab
	@$(STEP) build-load 'building the workload runner' cargo build --release --package joule-load

run-lab: lab-built
	$(AS_ROOT) $(RELEASE)/lab run $(if $(MACHINE),--machine $(MACHINE)) $(if $(WORKLOAD),--workload $(WORKLOAD)) \
		$(if $(SEEDS),--seeds $(SEEDS))

# Once; eight minutes on two quiet CPUs.
lab-kernel: lab-built
	$(if $(AS_ROOT),sudo env HOME=$(HOME) PATH=$(PATH)) $(RELEASE)/lab prepare --kernel lab

test:
	@packaging/debian-deps.sh build lab
	@tests/run.sh tests/list

test-full:
	@packaging/debian-deps.sh build lab
	@tests/run.sh tests/list tests/list-full

# With the checks of a debug build, and the speed of a release; the parsers' files in memory, where there is a place.
fuzz:
	@packaging/debian-deps.sh build
	@$(STEP) build-fuzz 'building what tries the parsers' cargo build --profile fuzz --package scx_joule --example fuzz
	TMPDIR=$(or $(TMPDIR),$(wildcard /dev/shm),/tmp) target/fuzz/examples/fuzz $(or $(INPUTS),10000000)

soak:
	@packaging/debian-deps.sh build lab
	JOULE_SOAK_S=$(or $(SECONDS),1800) cargo test --package lab --test all storm:: -- --nocapture

# With the user's home and cargo, which builds the peers.
bench-lab: lab-built
	$(if $(AS_ROOT),sudo env HOME=$(HOME) PATH=$(PATH)) $(RELEASE)/lab bench $(MACHINES:%=--machine %) $(WORKLOADS:%=--workload %) \
		$(SCHEDULERS:%=--scheduler %) $(if $(SEEDS),--seeds $(SEEDS))

bench-lab-smoke: lab-built
	$(AS_ROOT) $(RELEASE)/lab bench --seeds 2 --settle 5 --machine phone-3c-gs101 \
		--workload periodic-15 --workload messaging --workload batch \
		--scheduler eevdf-eas --scheduler eevdf --scheduler $(RELEASE)/scx_joule

bench-lisa: lab-built
	$(AS_ROOT) $(RELEASE)/lab lisa $(if $(MACHINE),--machine $(MACHINE))

# Not as root: cargo, which builds the peers, is the user's.
bench-cost: lab-built
	$(RELEASE)/lab cost

bench-model:
	@packaging/debian-deps.sh build
	@$(STEP) build-bench-model 'building the model and its bench' cargo build --release --example bench_model
	nice -n 5 $(RELEASE)/examples/bench_model $(FOLDER) $(if $(SEEDS),--seeds $(SEEDS))

format:
	cargo fmt --all
	clang-format-19 -i src/bpf/*.h src/bpf/*.c tests/lab/probe/*.c tests/lab/emulator/*.c tests/lab/instruments/*.c
