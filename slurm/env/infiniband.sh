#!/bin/bash
# Example of a site with InfiniBand: SITE=infiniband. Names of devices: `ibstat -l`, `ip -br link`.

# no CUDA module: torch's wheel brings its CUDA libraries, the nodes only the driver (for CUDA 13)
# source /shared/venvs/lightning-rad/bin/activate
export NCCL_IB_HCA=${NCCL_IB_HCA:-mlx5}              # all adapters whose names begin so
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-ib0} # only the first contact goes through sockets
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-ib0}
export NCCL_IB_TIMEOUT=${NCCL_IB_TIMEOUT:-22} # a busy fabric is not a dead one
# STAGE_DIR=${STAGE_DIR:-/local/$SLURM_JOB_ID}       # node-local disk: shards are copied there
