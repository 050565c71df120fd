#!/bin/bash
# What every job sets; whatever is set at submission stays. A site adds env/<site>.sh, taken by
# SITE=<site>, beside this file: its modules or virtual environment, network, scratch.

export PYTHON=${PYTHON:-python3}             # of the environment that has lightning_rad
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # a rank's CPUs decode; its GPU computes
export PYTHONUNBUFFERED=1                    # a log ends where its process ended
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}        # says which rank and which link failed

# compiled kernels on the node's own disk: thousands of small files, written by every rank
scratch=${SLURM_TMPDIR:-/tmp}/lightning-rad-$(id -un)
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$scratch/inductor}

# where nodes reach no other network: WANDB_MODE=offline, then `wandb sync RUN/wandb/offline-*`
