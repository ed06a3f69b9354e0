#!/usr/bin/env bash
# Starts a run on every host of an existing TPU slice: the same command on each, one process per host.
#
#   bash launch/tpu_pod.sh [--dry_run] --name=TPU --zone=ZONE [--project=ID] [--hosts=1] [--folder=deeplab_jax] \
#       [--config=FILE] --workdir=DIR [main.py's flags ...]
#
# The processes find each other through the slice's metadata. Each host needs a clone of this repository in --folder of
# the home folder, with a .venv that has jax[tpu]: see docs/launching.md. --workdir must be one folder that all hosts
# see (a mounted bucket, NFS). --hosts is the number of lines that a dry run prints.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source launch/hosts.sh
parse_options "name zone project hosts=1 folder=deeplab_jax" "$@"
require_options name zone
require_count hosts

process="cd $(quoted "${option[folder]}") && exec $(quoted "$venv/bin/python" main.py "${flags[@]}")"
ssh=(gcloud compute tpus tpu-vm ssh "${option[name]}" "--zone=${option[zone]}")
[[ -z "${option[project]}" ]] || ssh+=("--project=${option[project]}")

if [[ -n "$dry_run" ]]; then
  show "here" "$(quoted "${ssh[@]}" --worker=all "--command=$process")"
  for ((id = 0; id < option[hosts]; id++)); do
    show "host $id" "$process"
  done
  exit
fi
command -v gcloud >/dev/null || fail "no gcloud here; install Google Cloud's command line, or see docs/launching.md for other ways"
exec "${ssh[@]}" --worker=all "--command=$process"
