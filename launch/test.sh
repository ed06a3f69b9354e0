#!/usr/bin/env bash
# Linters, types and tests; arguments go to pytest.
#
#   bash launch/test.sh [-k NAME] [-m slow] ...
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
find_python
make_environment
install_requirements requirements-dev.txt requirements.txt

"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy
"$python" -m pytest --numprocesses=auto --dist=loadfile "$@"
