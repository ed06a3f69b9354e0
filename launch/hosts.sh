# Sourced by the launch scripts: separates their own options from main.py's flags, and prints commands.
#
#   parse_options "NAME[=DEFAULT] ..." ARGUMENTS...     then: $dry_run, ${option[NAME]}, "${flags[@]}"
#
# --dry_run and each --NAME=VALUE whose name is listed are the script's own; all other arguments go to main.py.

declare -A option
flags=()
dry_run=""

parse_options() {
  local each name names="$1"
  shift
  for each in $names; do
    option[${each%%=*}]=""
    [[ "$each" != *=* ]] || option[${each%%=*}]="${each#*=}"
  done
  for each in "$@"; do
    name="${each#--}"
    name="${name%%=*}"
    if [[ "$each" == --dry_run ]]; then
      dry_run=yes
    elif [[ "$each" == --*=* && -v "option[$name]" ]]; then
      option[$name]="${each#*=}"
    else
      flags+=("$each")
    fi
  done
  [[ " ${flags[*]-} " == *" --workdir="* ]] || fail "give main.py's flags too: --workdir=DIR, a folder that every host sees, and --config=FILE for a new run"
}

require_options() {
  local name
  for name in "$@"; do
    [[ -n "${option[$name]}" ]] || fail "give --$name=...; see the top of the script"
  done
}

require_count() {
  [[ "${option[$1]}" =~ ^[1-9][0-9]*$ ]] || fail "--$1=${option[$1]}: must be a number, at least 1"
}

# The words of a command as one line that a shell parses into the same words.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s' "${line% }"
}

# Prints what one host or process runs.
show() {
  printf '%s: %s\n' "$1" "$2"
}
