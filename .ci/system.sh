#!/usr/bin/env bash
# Install what a fresh Debian or Ubuntu lacks for the other scripts: as root, or with sudo.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

missing=()
command -v git >/dev/null || missing+=(git)
command -v make >/dev/null || missing+=(make)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v clang >/dev/null || missing+=(clang)
[[ -e /usr/include/vl/fisher.h ]] || missing+=(libvlfeat-dev)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    missing+=(python3-dev)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
if [[ ${#missing[@]} != 0 ]]; then
    echo "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
python3 --version
gcc --version | sed 1q
clang --version | sed 1q
