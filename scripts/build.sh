#!/usr/bin/env bash
# build.sh [release|debug]: setup, configure and compile one preset (CMakePresets.json) into build/<preset>.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
case $preset in
release | debug) ;;
*)
    echo "build.sh: unknown preset '$preset'; it is release or debug" >&2
    exit 2
    ;;
esac

scripts/setup.sh
cmake --preset "$preset"
cmake --build --preset "$preset"
