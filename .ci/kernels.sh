#!/usr/bin/env bash
# The C kernels without Python: no warning of either compiler, no state outside the dispatch table, and every kernel under
# the address and undefined-behaviour sanitizers; they run at least 95 of 100 lines of csrc.
#
#     kernels.sh [BUILD]     SEEDS="0 1" in the environment: random inputs of the sanitized runs
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=${1:-$(mktemp -d)}
jobs=$(nproc 2>/dev/null || echo 2)
for compiler in ${COMPILERS:-gcc clang}; do
    make -s -j"$jobs" -C tests/c lint CC="$compiler" BUILD="$build/$compiler"
    echo "$compiler: no warning, no state outside the dispatch table"
done
make -s -j"$jobs" -C tests/c check CC="${SANITIZED_CC:-gcc}" BUILD="$build/sanitized" SEEDS="${SEEDS:-0 1}"
make -s -j"$jobs" -C tests/c coverage CC="${COVERED_CC:-gcc}" BUILD="$build"
