#!/bin/bash
# Sourced by job.sh: shards are copied to a disk of each node, where STAGE_DIR names one.
: "${here:?}" "${run:?the folder of the run}"

stage() { # ARGUMENTS...: sets staged, the arguments that read the copy
	local from sum to
	staged=()
	[[ -n ${STAGE_DIR-} ]] || return 0
	from=$(option data.manifest "$@")
	from=${from%/manifest.json}
	[[ -f $from/manifest.json ]] ||
		refuse "STAGE_DIR=$STAGE_DIR copies the folder of --data.manifest FOLDER, got '$from'"
	sum=$(sha256sum <"$from/manifest.json")
	to=$STAGE_DIR/lightning-rad-${sum:0:16}
	if ! step 1 "$PYTHON" "$here/stage.py" "$from" "$to"; then
		say "staging $from to $to failed" # a full disk or a flaky node, not the user
		return 1
	fi
	realpath "$from" >"$run/staged" # what evaluate.sbatch reads: the copy is this job's
	# shellcheck disable=SC2034 # read by pretrain
	staged=(--data.manifest "$to")
	say "shards staged: $to"
}
