#!/usr/bin/env bash
# The sdist, and the wheel from it: both hold exactly what they should, and are fit to upload.
#
#     packages.sh DIST     the folder that receives them
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dist=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment "$work/tools" packages
PATH=$work/tools/bin:$PATH

copy_checkout "$work/built"
copy_checkout "$work/clean"
python -m build --outdir "$dist" "$work/built" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
python .ci/contents.py "$work/clean" "$dist"
twine check --strict "$dist"/*
abi3audit --strict "$dist"/*.whl
auditwheel show "$dist"/*.whl
