#!/usr/bin/env bash
# A wheel in an environment of its own, tested away from the sources of the package.
#
#     wheel.sh WHEEL [VENV]     ORACLES=1: with VLFeat and Chromium (system.sh installs both), and with the optional
#                               packages that tests use, but for torch
#                               OLDEST=1: the oldest dependencies that pyproject.toml admits, instead of the newest
#                               PRE=1: pre-releases of the dependencies
#                               ISAS=1: the tests of the kernels once more for each instruction set of this machine, but
#                               for those that run on every instruction set by themselves
#                               SANITIZED=DIR: the tests of the kernels once more, on the best instruction set, with the
#                               extension module under the address and undefined-behaviour sanitizers of gcc. It is made
#                               of the objects that `kernels.sh DIR` left, or of new ones
#                               TYPES=1: mypy and stubtest, too
#                               COVERAGE=1: which lines the tests never run; too many are an error
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${2:-$work/venv}
extra=
objects=${SANITIZED:+$(mkdir -p "$SANITIZED" && cd "$SANITIZED" && pwd)}
environment "$venv"
if [[ ${ORACLES:-} == 1 ]]; then
    "$venv/bin/pip" install -q -U setuptools wheel numpy scipy cython
    "$venv/bin/pip" install -q --no-build-isolation cyvlfeat==0.7.1
    "$venv/bin/pip" install -q pandas polars
    extra=,browser,dicom,distributed,tiff
fi
if [[ ${OLDEST:-} == 1 ]]; then
    "$venv/bin/python" .ci/oldest.py >"$work/oldest.txt"
    "$venv/bin/pip" install -q "${wheel}[test$extra]" -c "$work/oldest.txt"
else
    "$venv/bin/pip" install -q "${wheel}[test$extra]" ${PRE:+--pre}
fi

if [[ -n $objects ]]; then
    "$venv/bin/pip" install -q cython
    make -s -j"$(nproc 2>/dev/null || echo 2)" -C tests/c extension CC=gcc BUILD="$objects" PYTHON="$venv/bin/python"
fi

copy_checkout "$work/outside"
rm -r "$work/outside/fvlrp" "$work/outside/setup.py"
cd "$work/outside"
"$venv/bin/python" -c '
import fvlrp._kernels as kernels, numpy, sys
print(kernels.__file__.rpartition("/")[2], "runs", *kernels.isas())
print("Python", sys.version.split()[0], "NumPy", numpy.__version__)
assert "site-packages" in kernels.__file__'
[[ ${ORACLES:-} != 1 ]] || "$venv/bin/python" -c 'import cyvlfeat.fisher, cyvlfeat.sift'
"$venv/bin/fvlrp" --help >/dev/null

if [[ ${TYPES:-} == 1 ]]; then
    "$venv/bin/pip" install -q --group types
    "$venv/bin/mypy"
    "$venv/bin/python" -m mypy.stubtest --mypy-config-file pyproject.toml fvlrp._kernels
fi
mapfile -t isas < <("$venv/bin/python" -c 'import fvlrp._kernels as k; print(*k.isas(), sep="\n")')
mapfile -t on_kernels < <(grep -lE '^(import|from) fvlrp.*_kernels' tests/test_*.py)
if [[ -n $objects ]]; then
    printf '\nThe tests of the kernels under sanitizers, on %s\n' "${isas[0]}"
    mkdir "$work/package"
    cp -r "$("$venv/bin/python" -c 'import fvlrp; print(fvlrp.__path__[0])')" "$work/package"
    rm "$work/package/fvlrp"/_kernels.*.so
    cp "$objects/sanitized/_kernels.abi3.so" "$work/package/fvlrp/"
    # The first report ends the run with an error. What Python keeps until it exits is no leak.
    sanitized=(env PYTHONPATH="$work/package" FVLRP_ISA="${isas[0]}" ASAN_OPTIONS=detect_leaks=0
        LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so.6)")
    "${sanitized[@]}" "$venv/bin/python" -c '
import ctypes, fvlrp._kernels as kernels
assert hasattr(ctypes.CDLL(kernels.__file__), "__asan_init"), f"{kernels.__file__} is not under sanitizers"'
    "${sanitized[@]}" "$venv/bin/pytest" -q --capture=sys "${on_kernels[@]}"
fi
if [[ ${ISAS:-} == 1 ]]; then
    for isa in "${isas[@]:1}"; do
        printf '\nThe tests of the kernels on %s\n' "$isa"
        FVLRP_ISA=$isa "$venv/bin/pytest" -q -m "not isa" "${on_kernels[@]}"
    done
fi
if [[ ${COVERAGE:-} == 1 ]]; then
    "$venv/bin/pip" install -q --group coverage
    "$venv/bin/coverage" run -m pytest
    "$venv/bin/coverage" combine --quiet
    "$venv/bin/coverage" report
else
    "$venv/bin/pytest"
fi
