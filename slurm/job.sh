#!/bin/bash
# Sourced by the job scripts of this folder: settings, layout, launch, and what follows a failure.
# Read docs/slurm.md first.
: "${here:?the folder of this file}"

refuse() { # LINE: what the user got wrong; such a job is not started again
	printf 'lightning-rad: %s\n' "$*" >&2
	exit 2
}

say() { # LINE: to the job's output and into the run's folder
	printf '%s job %s: %s\n' "$(date +%FT%T)" "$SLURM_JOB_ID" "$*" | tee -a "$logs/job.log"
}

option() { # NAME ARGUMENTS...: the last value given for --NAME, empty where there is none
	local name=--$1 value=
	shift
	while (($#)); do
		case $1 in
		"$name") value=${2-} ;;
		"$name="*) value=${1#*=} ;;
		esac
		shift
	done
	printf %s "$value"
}

settings() { # the site's: env/default.sh, then env/$SITE.sh
	# sbatch --export=NONE would leave the ranks without all that is set here
	unset SLURM_EXPORT_ENV
	# shellcheck source=slurm/env/default.sh
	source "$here/env/default.sh"
	if [[ -n ${SITE-} ]]; then
		[[ -f $here/env/$SITE.sh ]] || refuse "SITE=$SITE: there is no $here/env/$SITE.sh"
		# shellcheck source=/dev/null
		source "$here/env/$SITE.sh"
	fi
	export LAUNCH=${LAUNCH:-srun}
	[[ $LAUNCH == srun || $LAUNCH == torchrun ]] || refuse "LAUNCH=$LAUNCH: srun or torchrun"
}

layout() { # ARGUMENTS...: nodes, ranks (on each node) and cpus (of each rank), from Slurm alone
	nodes=$SLURM_JOB_NUM_NODES
	local asked=${SLURM_NTASKS_PER_NODE-} gpus=${SLURM_GPUS_PER_NODE##*:} key given
	[[ -z ${SLURM_GPUS_PER_TASK-} ]] || refuse "--gpus-per-task hides GPUs: give --gpus-per-node"
	# one agent a node is how torchrun is usually asked for; its ranks are the GPUs
	[[ $LAUNCH == torchrun && -n $gpus && $asked == 1 ]] && asked=
	# --exclusive gives all GPUs of a node, so those that are there count last
	export RANKS=${gpus:-${asked:-${SLURM_GPUS_ON_NODE:-1}}}
	[[ ${asked:-$RANKS} == "$RANKS" ]] ||
		refuse "--ntasks-per-node=$asked, but --gpus-per-node=$gpus: one rank has one GPU"
	[[ -n $asked$gpus || ${SLURM_NTASKS:-$nodes} == "$nodes" ]] ||
		refuse "--ntasks=$SLURM_NTASKS on $nodes nodes: give --ntasks-per-node"
	for key in "trainer.devices $RANKS" "trainer.num_nodes $nodes"; do
		given=$(option "${key% *}" "$@")
		[[ ${given:-${key#* }} == "${key#* }" ]] ||
			refuse "--${key% *} $given, but this job has ${key#* }: leave it out, Slurm tells it"
	done
	# shellcheck disable=SC2153 # Slurm's
	((SLURM_CPUS_ON_NODE >= RANKS)) ||
		refuse "$SLURM_CPUS_ON_NODE CPU on a node for $RANKS ranks: give --exclusive or --cpus-per-gpu"
	cpus=$((SLURM_CPUS_ON_NODE / RANKS))
}

step() { # TASKS-PER-NODE OPTIONS-AND-COMMAND...: srun over all nodes, whatever sbatch was asked
	local tasks=$1
	shift
	env -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_NTASKS_PER_NODE -u SLURM_CPUS_PER_TASK \
		-u SLURM_CPUS_PER_GPU srun --nodes="$nodes" --ntasks=$((nodes * tasks)) \
		--ntasks-per-node="$tasks" --cpus-per-task=$((cpus * RANKS / tasks)) \
		--kill-on-bad-exit=1 "$@"
}

meet() { # TRY: where the ranks of this try meet; a port of its own, the last may still be closing
	MASTER_ADDR=${SITE_MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
	MASTER_PORT=$((20000 + (SLURM_JOB_ID * 16 + $1) % 12000))
	export MASTER_ADDR MASTER_PORT
}

attempt() { # COMMAND...: run lightning-rad on all ranks; the status of the rank that failed first
	local tasks=$RANKS name=rank status=0 first
	[[ $LAUNCH == srun ]] || { tasks=1 name=node; }
	# --wait: srun gives up on a task whose end it never heard of (a node was cut off for a while);
	# long enough for what rank 0 alone does at the end
	step "$tasks" --wait="${SLURM_WAIT:-300}" --output="$logs/$name-%t.log" --open-mode=append \
		"$here/rank.sh" "$@" 2>"$logs/srun.log" || status=$?
	tee -a "$logs/job.log" <"$logs/srun.log"
	# srun returns the highest status, and those that it ended itself count: 143 would hide an 85
	first=$(grep -m 1 -E 'error: .*tasks? [0-9,-]+: ' "$logs/srun.log")
	case $first in
	*"xited with exit code "*) return "${first##* }" ;;
	?*) return 137 ;;
	esac
	return "$status"
}

insist() { # COMMAND...: the controller may be away for a moment
	local try
	for try in 1 2 3 4 5 6; do
		"$@" && return
		((try == 6)) || sleep "${SLURM_INSIST:-5}"
	done
	return 1
}

go_on_only_if_running() { # STATUS WHY: else this is the end
	# a preempted job, or one whose node died, Slurm requeues itself; a cancelled one must stay away
	local state
	state=$(insist squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || state=RUNNING
	[[ $state == RUNNING ]] && return
	say "$2: Slurm is ending this job"
	exit "$1"
}

requeue() { # STATUS WHY: back into the queue, as this job
	local id=$SLURM_JOB_ID
	[[ -z ${SLURM_ARRAY_JOB_ID-} ]] || id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
	go_on_only_if_running "$@"
	say "$2: to be requeued" # once it is, this script may be gone before its next line
	insist scontrol requeue "$id" ||
		say "$2: cannot be requeued, the same sbatch command goes on"
	exit "$1"
}

newest() { # the step of the newest whole checkpoint, 0 where there is none
	local file step=0
	for file in "$run"/checkpoints/step-????????/contents.json; do
		[[ ! -f $file ]] || { file=${file%/*} && step=${file##*-}; }
	done
	echo $((10#$step))
}

count_failure() { # sets failures: how many there were since the newest checkpoint
	local step before=
	step=$(newest)
	failures=0
	[[ ! -f $run/failures ]] || read -r before failures <"$run/failures"
	[[ $before == "$step" ]] || failures=0
	failures=$((failures + 1))
	echo "$step $failures" >"$run/failures"
}

pretrain() { # ARGUMENTS...: `lightning-rad fit` to its end, or back into the queue
	local try=0 status
	run=$(option run "$@")
	[[ -n $run ]] || refuse "--run FOLDER is needed: there a requeued job finds its checkpoint"
	settings
	layout "$@"
	logs=$run/logs/$SLURM_JOB_ID
	mkdir -p "$logs" || exit 2
	[[ -n ${SLURM_RESTART_COUNT-} ]] || rm -f "$run/failures"
	trap : TERM # outlive the ranks: they save when Slurm ends the job
	say "start ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST, $RANKS ranks a node, logs in $logs"
	# shellcheck source=slurm/stage.sh
	source "$here/stage.sh"
	while :; do
		meet $((try++))
		status=0
		stage "$@" && attempt fit "$@" "${staged[@]}" --ckpt_path last \
			--trainer.num_nodes "$nodes" --trainer.devices "$RANKS" || status=$?
		case $status in
		0) say "finished" && exit 0 ;;
		85) requeue 85 "stopped at step $(newest)" ;;
		2 | 86 | 130) say "exit status $status, not tried again" && exit "$status" ;;
		esac
		go_on_only_if_running "$status" "exit status $status"
		count_failure
		say "exit status $status, failure $failures since step $(newest), see $logs"
		((failures <= ${RESTARTS:-3})) || exit "$status"
		# at first again here; then through the queue, which may give other nodes
		((failures == 1)) || requeue "$status" "failed again"
	done
}
