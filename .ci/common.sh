# Sourced by the scripts beside it: they run from the root of a checkout, stop at the first failure and read no input.
# shellcheck shell=bash
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A new virtual environment $1 with the dependency groups of pyproject.toml that follow.
environment() {
    local folder=$1 groups=()
    shift
    for group in "$@"; do groups+=(--group "$group"); done
    "${PYTHON:-python3}" -m venv "$folder"
    "$folder/bin/pip" install -q -U pip
    [[ ${#groups[@]} == 0 ]] || "$folder/bin/pip" install -q "${groups[@]}"
}

# The files of the checkout that git tracks or would track, into the new folder $1.
copy_checkout() {
    mkdir -p "$1"
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard --deduplicate |
        while IFS= read -r -d '' name; do [[ ! -f $name ]] || printf '%s\0' "$name"; done |
        tar --null -T - -cf - | tar -C "$1" -xf -
}
