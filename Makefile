# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
BENCH ?= bench
LEDGER := .faults.jsonl
FAULTS := tests/training tests/checkpoints tests/objectives/test_loss_guard.py tests/slurm tests/docker
STACK := -c configs/base.yaml -c configs/objective/simclr_small.yaml \
  -c configs/view/two_view_small.yaml -c configs/data/demo.yaml -c configs/scale/cpu.yaml
DEMO_RUN := --run $(DEMO)/run --data.manifest $(DEMO)/shards --trainer.max_epochs 20 \
  --trainer.check_val_every_n_epoch 10

.PHONY: demo test bench setup format lint types contracts unit test-slurm test-docker reliability soak lock clean

# Synthetic shards, SimCLR on the CPU, frozen probes against the random-init encoder.
demo: setup
	@rm -rf $(DEMO)/run
	$(BIN)/lightning-rad shards synthesize $(DEMO)/shards --patients 600 --size 96 --overwrite true
	$(BIN)/lightning-rad fit $(STACK) $(DEMO_RUN)
	$(BIN)/lightning-rad validate $(STACK) $(DEMO_RUN) --ckpt_path last \
	  --probe.must_beat_random true

test: setup format lint types contracts unit

# Radiomics, contrastive losses, then the data path side by side on this CPU; fails where a target is missed.
# GPU: benchmarks/gpu.sh
bench: setup
	@missed=0; for what in radiomics contrastive_losses tar_iteration decoding loaders augmentation; do \
	  $(BIN)/python -m benchmarks.$$what $(BENCH) || missed=1; done; exit $$missed

setup: $(VENV)/.ready

# Pinned versions; a change of pyproject.toml or constraints.txt sets up anew.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "venv failed; on Debian/Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

format:
	$(BIN)/ruff format --check .

lint:
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

contracts:
	$(BIN)/lint-imports

unit:
	$(BIN)/pytest -m 'not slurm and not docker'

# A real Slurm of three nodes on this machine; needs root, slurm-wlm, munge and iproute2.
test-slurm: setup
	$(BIN)/pytest -m slurm tests/slurm

# The image, built and run: docker, or podman as root; docs/docker.md says with what.
test-docker: setup
	$(BIN)/pytest -m docker tests/docker

# Every test of a fault, and the table of docs/reliability.md anew from what they saw.
reliability: setup
	rm -f $(LEDGER)
	FAULT_LEDGER=$(abspath $(LEDGER)) $(BIN)/pytest $(FAULTS)
	$(BIN)/python -m tests.faults $(LEDGER)

# 200 deaths at random moments of a run of two ranks, which ends as an undisturbed one.
soak: setup
	$(BIN)/python -m tests.soak soak --kills 200

# docker/*.lock anew, after a change of pyproject.toml or constraints.txt; needs uv.
lock:
	docker/lock.sh

clean:
	rm -rf $(VENV) $(DEMO) bench soak $(LEDGER) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
