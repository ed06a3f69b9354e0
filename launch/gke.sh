#!/usr/bin/env bash
# Starts a run on a TPU slice of a GKE cluster as a job set: one pod per host, one process per pod.
#
#   bash launch/gke.sh [--dry_run] --name=RUN --image=IMAGE --topology=4x4 [--accelerator=tpu-v5-lite-podslice] \
#       [--chips_per_host=4] [--claim=runs] [--config=FILE] --workdir=/runs/DIR [main.py's flags ...]
#
# The image contains this repository in /deeplab_jax, its requirements and jax[tpu]; the volume claim (a bucket or NFS
# writable by all pods) is mounted at /runs. kubectl must be configured for the cluster, which needs JobSet's controller.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source launch/hosts.sh
parse_options "name image topology accelerator=tpu-v5-lite-podslice chips_per_host=4 claim=runs" "$@"
require_options name image topology
require_count chips_per_host
[[ "${option[topology]}" =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology=${option[topology]}: must look like 4x4 or 2x2x4"
[[ "${option[name]}" =~ ^[a-z][a-z0-9-]{0,39}$ ]] || fail "--name=${option[name]}: must be small letters, digits and dashes"

chips=$((${option[topology]//x/*}))
hosts=$(((chips + option[chips_per_host] - 1) / option[chips_per_host]))

# The words as a YAML list on one line; in single-quoted values only single quotes need doubling.
yaml_list() {
  local word line=""
  for word in "$@"; do
    line+="${line:+, }'${word//\'/\'\'}'"
  done
  printf '[%s]' "$line"
}

words=(python main.py "${flags[@]}")
manifest="$(<launch/gke_jobset.yaml)"
fill() {
  local value="$2"
  manifest="${manifest//": $1"/": $value"}"
}
fill NAME "${option[name]}"
fill HOSTS "$hosts"
fill ACCELERATOR "${option[accelerator]}"
fill TOPOLOGY "${option[topology]}"
fill IMAGE "${option[image]}"
fill CHIPS_PER_HOST "${option[chips_per_host]}"
fill CLAIM "${option[claim]}"
fill COMMAND "$(yaml_list "${words[@]}")"

if [[ -n "$dry_run" ]]; then
  show "here" "kubectl apply -f - <<EOF"
  printf '%s\nEOF\n' "$manifest"
  for ((id = 0; id < hosts; id++)); do
    show "pod $id" "$(quoted "${words[@]}")"
  done
  exit
fi
command -v kubectl >/dev/null || fail "no kubectl here; install it and point it at the cluster, or see docs/launching.md for other ways"
kubectl apply -f - <<<"$manifest"
