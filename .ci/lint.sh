#!/usr/bin/env bash
# Everything that can be said of the sources without running them.
#
#     lint.sh [VENV]     the environment to make, or one made by an earlier run
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

venv=${1:-$(mktemp -d)/lint}
[[ -x $venv/bin/ruff ]] || environment "$venv" lint
PATH=$(cd "$venv/bin" && pwd):$PATH

ruff check --no-cache .
ruff format --no-cache --check .
codespell
shellcheck -x -P SCRIPTDIR .ci/run .ci/*.sh
check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
zizmor --offline --quiet --no-progress .github
