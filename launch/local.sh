#!/usr/bin/env bash
# Starts a run on this machine: one process for all its devices (the usual), or several that share them.
#
#   bash launch/local.sh [--dry_run] [--processes=1] [--port=12355] [--config=FILE] --workdir=DIR [main.py's flags ...]
#
# With several processes and --gpus=G, each sees its own G / N of the GPUs. If one fails the others are terminated;
# SIGTERM is passed on to all, which save and exit.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source launch/hosts.sh
parse_options "processes=1 port=12355 gpus=0" "$@"
require_count processes
count="${option[processes]}"

if [[ -z "$dry_run" ]]; then
  find_python
  make_environment
  install_requirements requirements.txt
fi
python="$venv/bin/python"

command_of() {
  local id="$1" words=("$python" main.py "${flags[@]}") share first
  if ((count > 1)); then
    words+=("--coordinator=localhost:${option[port]}" "--num_processes=$count" "--process_id=$id")
    if ((option[gpus] > 0)); then
      share=$((option[gpus] / count))
      first=$((id * share))
      words=(env "CUDA_VISIBLE_DEVICES=$(seq -s, "$first" $((first + share - 1)))" "${words[@]}")
    fi
  fi
  quoted "${words[@]}"
}

((option[gpus] % count == 0)) || fail "--gpus=${option[gpus]}: $count processes cannot share them evenly"
if [[ -n "$dry_run" ]]; then
  for ((id = 0; id < count; id++)); do
    show "process $id" "$(command_of "$id")"
  done
  exit
fi

children=()
trap '((${#children[@]} == 0)) || kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
for ((id = 0; id < count; id++)); do
  eval "$(command_of "$id") &"
  children+=("$!")
done
status=0
for ((ended = 0; ended < count; )); do
  if wait -n; then
    result=0
  else
    result=$?
  fi
  # A signal to this script interrupts `wait`; the children are still running.
  if ((result > 128)) && kill -0 "${children[@]}" 2>/dev/null; then
    continue
  fi
  ended=$((ended + 1))
  if ((result != 0 && status == 0)); then
    status=$result
    kill -TERM "${children[@]}" 2>/dev/null || true
  fi
done
exit "$status"
