#!/usr/bin/env bash
# Both set-up commands of README.md, as they are printed, in one clone: the second finds what the first has left.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mapfile -t commands < <(sed -n 's/^ *\(python3 -m venv .*\)/\1/p' README.md)
[[ ${#commands[@]} == 2 ]] || { echo "README.md should print two commands that begin: python3 -m venv" >&2; exit 1; }
copy_checkout "$work/clone"
cd "$work/clone"
for command in "${commands[@]}"; do
    since=$SECONDS
    printf '\n$ %s\n' "$command"
    bash -euo pipefail -c "$command"
    printf -- '-- %d s\n' $((SECONDS - since))
done
