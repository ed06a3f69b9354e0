#!/usr/bin/env bash
# Trains, evaluates, predicts and reports on a small data set that the project renders itself.
#
#   bash launch/demo.sh [WORKDIR]        default: runs/quickstart; an interrupted run resumes
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
run=("$python" main.py --config=configs/quickstart.py --workdir="$workdir")
"${run[@]}"

# Scenes outside every split.
"$python" - "$workdir/scenes" <<'EOF'
import pathlib
import sys

import numpy as np
from PIL import Image

from deeplab_jax.data.sources.rendering import render_scene

folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for seed in range(4):
    image, _ = render_scene(np.random.default_rng(seed), (128, 160))
    Image.fromarray(image).save(folder / f"scene{seed}.png")
EOF
"${run[@]}" --mode=predict --images="$workdir/scenes"

echo
echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s, installation not counted"
echo "report:      $workdir/report.html"
echo "scores:      $workdir/scores.json"
echo "predictions: $workdir/predictions"
echo "your images: ${run[*]} --mode=predict --images=FOLDER"
