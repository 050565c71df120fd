#!/bin/bash
# One task of srun: becomes a rank, or for LAUNCH=torchrun the agent that starts a node's ranks.
here=$(dirname "$0")
# without this a wrong name is noticed after the half hour that ranks wait for each other
if ! getent hosts "$MASTER_ADDR" >/dev/null; then
	echo "lightning-rad: $(hostname): MASTER_ADDR=$MASTER_ADDR does not resolve" >&2
	exit 2
fi
# Python's own handlers come with training; until then, and in the agent, which would end its ranks
# or die, a signal must do no harm
trap '' TERM USR1
if [[ $LAUNCH == torchrun ]]; then
	exec "$PYTHON" "$here/torchrun.py" --nnodes="$SLURM_NNODES" --nproc-per-node="$RANKS" \
		--node-rank="$SLURM_NODEID" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
		--max-restarts=0 --signals-to-handle=SIGINT --tee=3 -m lightning_rad "$@"
fi
exec "$PYTHON" -m lightning_rad "$@"
