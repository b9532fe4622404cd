#!/usr/bin/env bash
# Brings what the build needs: Debian packages, and Apache Arrow with Parquet (inside pyarrow's wheel, in .venv) where the
# system has none. Does nothing, quickly, when all of it is there; asks nothing; works as root or through sudo.
# --slurm: Slurm as well, for tests/slurm.sh, which starts a cluster of its own; none is started here.
set -euo pipefail
cd "$(dirname "$0")/.."

pyarrow=26.0.1
packages=(build-essential gcc g++ cmake ninja-build pkg-config libdnnl-dev libjansson-dev libpcre2-dev libutf8proc-dev
    libjpeg-dev libpng-dev libwebp-dev libgif-dev libtiff-dev libcairo2-dev libcmocka-dev libopenmpi-dev openmpi-bin iproute2
    python3 python3-venv valgrind)
[ "${1:-}" != --slurm ] || packages+=(slurm-wlm munge)

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Prints the packages that dpkg does not know as installed.
missing_packages() {
    local installed package
    installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null | grep '^.i ' || true)
    for package in "${packages[@]}"; do
        grep -q " $package\$" <<<"$installed" || echo "$package"
    done
}

install_packages() {
    local missing as_root=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "not root and no sudo; as root, run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    echo "setup: installing ${missing[*]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
}

# Without apt nothing can be installed from here, but what is missing can be named: by program, or by pkg-config module.
check_by_hand() {
    local missing=() name
    for name in cc c++ cmake ninja pkg-config python3; do
        command -v "$name" >/dev/null || missing+=("the program $name")
    done
    for name in jansson libpcre2-8 libutf8proc libjpeg libpng libwebp cairo cmocka; do
        pkg-config --exists "$name" 2>/dev/null || missing+=("the library $name with its headers")
    done
    echo '#include <dnnl.h>' | cc -I/usr/include/oneapi/dnnl -E - >/dev/null 2>&1 || missing+=("the library oneDNN with its headers")
    echo '#include <stdio.h>
#include <gif_lib.h>' | cc -E - >/dev/null 2>&1 || missing+=("the library giflib with its headers")
    [ ${#missing[@]} -eq 0 ] || die "there is no apt-get on this system; install:" "${missing[@]}" \
        "(Debian's packages for all of them: ${packages[*]})"
}

system_arrow() {
    local prefix prefixes=${CMAKE_PREFIX_PATH:-}
    for prefix in ${prefixes//[:;]/ } /usr/local /usr; do
        compgen -G "$prefix/lib*/cmake/Parquet/ParquetConfig.cmake" >/dev/null && return 0
        compgen -G "$prefix/lib/*/cmake/Parquet/ParquetConfig.cmake" >/dev/null && return 0
    done
    return 1
}

install_pyarrow() {
    compgen -G ".venv/lib/python3*/site-packages/pyarrow-$pyarrow.dist-info/RECORD" >/dev/null && return 0
    local python=/usr/bin/python3
    [ -x $python ] || python=python3
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    echo "setup: installing pyarrow $pyarrow in .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: "pyarrow==$pyarrow"
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_packages
else
    check_by_hand
fi
system_arrow || install_pyarrow
