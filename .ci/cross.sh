#!/usr/bin/env bash
# The kernels for systems and processors that this machine is not, with Clang as the package ziglang brings it: every
# file compiles without a warning for Windows, macOS and Linux (musl, aarch64). With qemu-user and Debian's cross
# compiler, the C tests also run as on aarch64.
#
#     cross.sh [TARGET...]     as zig names them; all of them by default
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment "$work/venv" cross
export ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache
flags=(-std=c11 -O2 -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror
    -Icsrc -c -o "$work/object.o")

compile() { "$work/venv/bin/python" -m ziglang cc -target "$@" "${flags[@]}"; }

[[ $# != 0 ]] || set -- x86_64-windows-gnu x86_64-macos aarch64-macos x86_64-linux-musl aarch64-linux-musl aarch64-linux-gnu
for target in "$@"; do
    case $target in
    x86_64*) isas=(v2=x86_64_v2 v3=x86_64_v3 v4=x86_64_v4 vnni=x86_64_v4+avx512vnni) ;;
    *) isas=(generic=baseline) ;;
    esac
    have=()
    for isa in "${isas[@]%%=*}"; do have+=("-DFVLRP_HAVE_${isa^^}"); done
    for file in dispatch fisher/checks network/checks; do compile "$target" "${have[@]}" "csrc/$file.c"; done
    for isa in "${isas[@]}"; do
        for bits in 32 64; do
            compile "$target" -mcpu="${isa#*=}" -DFVLRP_ISA="${isa%%=*}" -DREAL_BITS="$bits" csrc/isa.c
        done
    done
    echo "$target: ${isas[*]%%=*}, no warning"
done

if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64-static >/dev/null; then
    make -s -j"$(nproc)" -C tests/c check ISAS=generic CC="aarch64-linux-gnu-gcc -static" SANITIZE="-O2" \
        RUN=qemu-aarch64-static BUILD="$work/aarch64" SEEDS=0
else
    echo "aarch64 was not run: it needs qemu-user-static and gcc-aarch64-linux-gnu"
fi
