#!/usr/bin/env bash
# Builds everything and runs every test: the release build, then the debug build under AddressSanitizer and
# UndefinedBehaviorSanitizer. Ends with ctest's summary of each run; exits non-zero when one failed or had no tests.
set -euo pipefail
cd "$(dirname "$0")/.."

# Test programs compute on one thread each; one more than there are cores keeps the cores busy while some wait.
cores=$(env -u OMP_NUM_THREADS nproc) # nproc would answer with OMP_NUM_THREADS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
status=0

# run_tests PRESET [arguments of ctest]: a failure is remembered, so that the other preset still runs.
run_tests() {
    local preset=$1
    shift
    scripts/build.sh "$preset"
    ctest --preset "$preset" --no-tests=error --no-label-summary -j $((cores + 1)) "$@" |
        tee "build/$preset/ctest.txt" || status=1
}

# The sum over all test programs of a run of cmocka's closing lines, such as "[  PASSED  ] 12 test(s)."
count() {
    awk -v word="$2" '$1 == "[" && $2 == word && $5 ~ /^test\(s\)/ { n += $4 } END { print n + 0 }' \
        "build/$1/Testing/Temporary/LastTest.log"
}

run_tests release
run_tests debug -LE valgrind # valgrind and AddressSanitizer exclude each other

for preset in release debug; do
    passed=$(count $preset PASSED)
    [ "$passed" -gt 0 ] || status=1
    printf '\n%s: %s test cases passed, %s skipped, %s failed\n' \
        $preset "$passed" "$(count $preset SKIPPED)" "$(count $preset FAILED)"
    sed -n '/tests passed,/,$p' build/$preset/ctest.txt
done
exit $status
