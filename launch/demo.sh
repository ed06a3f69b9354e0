#!/usr/bin/env bash
# Trains, evaluates, predicts and reports on a small data set that the project renders itself.
#
#   bash launch/demo.sh [WORKDIR]        default: runs/quickstart; a run cut short continues
set -euo pipefail

caller="$PWD"
workdir="${1:-}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
case "$workdir" in
  "") workdir=runs/quickstart ;;
  /*) ;;
  *) workdir="$caller/$workdir" ;;
esac

find_python
make_environment
install_requirements requirements.txt

SECONDS=0
"$python" main.py --config=configs/quickstart.py --workdir="$workdir"

echo
echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s, installation not counted"
echo "report:      $workdir/report.html"
echo "scores:      $workdir/scores.json"
echo "your images: $python main.py --config=configs/quickstart.py --workdir=$workdir --mode=predict --images=FOLDER"
