#!/usr/bin/env bash
# The documentation, its tutorials executed; a warning is an error, and every internal link has to resolve.
#
#     docs.sh PACKAGE [SITE]     a wheel, or a checkout to install; the folder that receives the pages
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

package=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
site=${2:-$work/site}
environment "$work/venv"
"$work/venv/bin/pip" install -q "${package}[docs]"
copy_checkout "$work/copy"
"$work/venv/bin/sphinx-build" -q -W --keep-going -n -b html "$work/copy/docs" "$work/html"
"$work/venv/bin/python" .ci/links.py "$work/html"
mkdir -p "$site"
cp -r "$work/html/." "$site"
