#!/usr/bin/env bash
# Inputs that nobody thought of: every kernel under libFuzzer and the sanitizers, then mutants of model and image files.
#
#     fuzz.sh [BUILD]     RUNS=20000 MUTANTS=1000 SEED=1 in the environment; CORPUS: a folder that keeps what was found
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=${1:-$(mktemp -d)}
seed=${SEED:-1}
make -s -j"$(nproc 2>/dev/null || echo 2)" -C tests/c fuzzer CC="${CLANG:-clang}" BUILD="$build"
corpus=${CORPUS:-$build/corpus}
mkdir -p "$corpus"
"$build/fuzzed/kernels" -seed="$seed" -runs="${RUNS:-20000}" -max_len=400 -timeout=5 -verbosity=0 "$corpus"
echo "kernels: ${RUNS:-20000} calls, no finding"
"${PYTHON:-python3}" tests/fuzz/mutate.py --count "${MUTANTS:-1000}" --seed "$seed"
