# Sourced by the other scripts here: makes .venv in the repository and installs requirements into it.
#
#   find_python; make_environment; install_requirements FILE...
#
# PYTHON=/path/to/python overrides the search. pip's own settings (PIP_INDEX_URL, pip.conf, ...) are honoured.
# After make_environment, "$python" is the environment's interpreter. Commands run from the repository's root.

readonly supported_versions="3.11 to 3.14"
readonly venv=.venv

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# A name on the path may be a shim without a Python behind it, so each candidate has to answer.
python_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null
}

is_supported() {
  case "$1" in
    3.11 | 3.12 | 3.13 | 3.14) return 0 ;;
    *) return 1 ;;
  esac
}

# Some systems ship Python without venv (Debian: python3-venv).
can_make_environments() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null </dev/null
}

find_python() {
  local candidate version without_venv=""
  if [[ -n "${PYTHON:-}" ]]; then
    version="$(python_version "$PYTHON")" || fail "PYTHON=$PYTHON does not run; give the path of a Python $supported_versions"
    is_supported "$version" || fail "PYTHON=$PYTHON is Python $version; give the path of a Python $supported_versions"
    can_make_environments "$PYTHON" || fail "PYTHON=$PYTHON has no venv module; install it (Debian, Ubuntu: apt-get install python$version-venv)"
    base_python="$PYTHON"
    return
  fi
  while IFS= read -r candidate; do
    version="$(python_version "$candidate")" || continue
    is_supported "$version" || continue
    if can_make_environments "$candidate"; then
      base_python="$candidate"
      return
    fi
    without_venv="$version"
  done < <(type -ap python3.12 python3.13 python3.11 python3.14 python3 python)
  [[ -z "$without_venv" ]] || fail "Python $without_venv has no venv module; install it (Debian, Ubuntu: apt-get install python$without_venv-venv)"
  fail "no Python $supported_versions runs here; install one (Debian, Ubuntu: apt-get install python3 python3-venv) or set PYTHON=/path/to/python"
}

# Keeps an existing environment that runs with the same Python version; otherwise recreates it.
make_environment() {
  local wanted found
  python="$venv/bin/python"
  wanted="$(python_version "$base_python")"
  found="$(python_version "$python")" || found=""
  if [[ "$found" == "$wanted" ]] && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  echo "making $venv with $base_python ($wanted)"
  rm -rf "$venv"
  "$base_python" -m venv "$venv" || fail "$base_python -m venv $venv failed; is this folder writable?"
}

# Installs only when a requirements file changed since the last time.
install_requirements() {
  local stamp="$venv/.installed-$1" checksum
  checksum="$(cat "$@" | cksum)"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$checksum" ]]; then
    return
  fi
  echo "installing $1 (once; about a minute)"
  "$python" -m pip install -qq --disable-pip-version-check -r "$1" ||
    fail "pip could not install $1: see above; without a network, point pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS)"
  printf '%s\n' "$checksum" >"$stamp"
}
