#!/usr/bin/env bash
# Inputs that nobody thought of: every kernel under libFuzzer and the sanitizers, then mutants of model and image files.
#
#     fuzz.sh [BUILD]     RUNS=20000 MUTANTS=1000 SEED=1 in the environment; CORPUS: a folder that keeps what was found
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=${1:-$(mktemp -d)}
seed=${SEED:-1}
make -s -j"$(nproc 2>/dev/null || echo 2)" -C tests/c fuzzer CC="${CLANG:-clang}" BUILD="$build"
corpus=${CORPUS:-$build/corpus}
mkdir -p "$corpus" "$build/seeds"
# Inputs that reach every edge of the kernels that was reached so far, one a line.
"${PYTHON:-python3}" - tests/fuzz/seeds.txt "$build/seeds" <<'END'
import base64, pathlib, sys
for i, line in enumerate(pathlib.Path(sys.argv[1]).read_text().split()):
    pathlib.Path(sys.argv[2], str(i)).write_bytes(base64.b64decode(line))
END
"$build/fuzzed/kernels" -seed="$seed" -runs="${RUNS:-20000}" -max_len=400 -timeout=5 -verbosity=0 "$corpus" "$build/seeds"
echo "kernels: ${RUNS:-20000} calls, no finding"
"${PYTHON:-python3}" tests/fuzz/mutate.py --count "${MUTANTS:-1000}" --seed "$seed"
