#!/usr/bin/env bash
# Every number of the kernels on one NVIDIA card, in under 8 minutes, whatever happens.
#
#   [PYTHON=python3.12] [WHEELS=folder] bash benchmarks/gpu.sh OUT [--device cpu --tiny]
#
# Needs torch 2.11, triton 3.6 or newer. Public contenders are optional; bring them as wheels:
#   pip download --no-deps -d folder lightly open_clip_torch ftfy timm inf_cl siglip-kernel
# `python -m benchmarks.gpu.tiles OUT` tries other tiles, in five minutes more.
# `python -m benchmarks.gpu.steps OUT` times whole training steps, in eight minutes more.
# Each section is a process of its own with a time of its own: one that hangs or fails leaves what
# it had and lets the next one run. ONLY="ceilings simclr" runs some of them.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: [ONLY=\"ceilings simclr\"] bash benchmarks/gpu.sh OUT [--device cpu --tiny]" >&2; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd) && shift
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}

if [ -n "${WHEELS:-}" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --target "$out/site" "$WHEELS"/*.whl
  export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$out/site"
fi

run() { # SECTION SECONDS: asked to end then, killed 15 s later
  [[ " ${ONLY:-$1} " == *" $1 "* ]] || return 0
  echo "== $1, at most $2 s"
  timeout --kill-after=5 $(($2 + 15)) \
    "$python" -m benchmarks.gpu "$1" "$out" --seconds "$2" "${arguments[@]}" || echo "== $1: exit $?"
}

arguments=("$@")
run ceilings 15
run correctness 55
run simclr 110
run pairs 65
run queues 35
run accuracy 15
run updates 15
"$python" -m benchmarks.gpu report "$out" "${arguments[@]}"
