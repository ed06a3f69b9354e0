#!/usr/bin/env bash
# Submits a run to Slurm: one process per node, which uses all GPUs of the node.
#
#   bash launch/slurm.sh [--dry_run] --nodes=4 [--gpus=8] [--time=24:00:00] [--partition=NAME] [--account=NAME] \
#       [--config=FILE] --workdir=DIR [main.py's flags ...]
#
# The processes find each other through Slurm's own variables. Before the time limit and on preemption Slurm sends
# SIGTERM: the run saves and exits. After a preemption it is requeued (--requeue) and resumes.
# .venv must exist and be visible to the nodes, with JAX for their GPUs: see docs/launching.md.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source launch/hosts.sh
parse_options "nodes gpus=8 time=24:00:00 partition account" "$@"
require_options nodes
require_count nodes
require_count gpus

process="$(quoted "$PWD/$venv/bin/python" main.py "${flags[@]}")"
batch=(
  sbatch "--nodes=${option[nodes]}" --ntasks-per-node=1 "--gpus-per-node=${option[gpus]}" "--time=${option[time]}"
  --exclusive --requeue --open-mode=append --signal=TERM@180 "--chdir=$PWD" --job-name=deeplab_jax
)
[[ -z "${option[partition]}" ]] || batch+=("--partition=${option[partition]}")
[[ -z "${option[account]}" ]] || batch+=("--account=${option[account]}")
batch+=("--wrap=srun --kill-on-bad-exit=1 $process")

if [[ -n "$dry_run" ]]; then
  show "here" "$(quoted "${batch[@]}")"
  for ((id = 0; id < option[nodes]; id++)); do
    show "node $id" "$process"
  done
  exit
fi
command -v sbatch >/dev/null || fail "no sbatch here; run this on a login node of the cluster, or see docs/launching.md for other ways"
"${batch[@]}"
