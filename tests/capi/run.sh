#!/usr/bin/env bash
# Builds the C core with tests/capi/test_core.c, test_weights.c, test_int8.c, test_models.c, test_threads.c and embed.c, and runs them.
#   tests/capi/run.sh [plain | sanitize | thread | neon | all]   (CC names the compiler, gcc by default)
set -eu

mode=${1:-all}
case $mode in plain | sanitize | thread | neon | all) ;; *) echo "usage: $0 [plain | sanitize | thread | neon | all]" >&2; exit 2 ;; esac
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
warnings="-std=c11 -Wall -Wextra -Werror -ffp-contract=off -pthread -Iinclude"

# Functions that wrapped.h replaces.
wrapped=malloc,--wrap=calloc,--wrap=aligned_alloc,--wrap=free,--wrap=pthread_create,--wrap=fr_seconds

# make_and_run NAME COMPILER RUNNER CORE_ARGUMENTS THREADS_ARGUMENTS FLAGS...   ("reduced": fewer sizes and rounds;
# "emulated" leaves out what an emulator cannot do)
make_and_run() {
    local name=$1 cc=$2 runner=$3 core_arguments=$4 threads_arguments=$5 out=$build/$1
    shift 5
    echo "== $name: $cc $*"
    mkdir "$out"
    find fastrnn/core -name '*.c' ! -name '*.inc.c' | # several at a time
        xargs -P "$(nproc)" -I{} sh -c "$cc $warnings $* -c {} -o $out/\$(basename {} .c).o"
    $cc $warnings "$@" tests/capi/test_core.c "$out"/*.o -lm -o "$out/test_core"
    $cc $warnings "$@" tests/capi/test_weights.c "$out"/*.o -lm -o "$out/test_weights"
    $cc $warnings "$@" tests/capi/test_int8.c "$out"/*.o -lm -o "$out/test_int8"
    $cc $warnings "$@" tests/capi/test_models.c "$out"/*.o -lm -Wl,--wrap=$wrapped -o "$out/test_models"
    $cc $warnings "$@" tests/capi/test_threads.c "$out"/*.o -lm -Wl,--wrap=$wrapped -o "$out/test_threads"
    $cc $warnings "$@" tests/capi/embed.c "$out"/*.o -lm -o "$out/embed"
    $runner "$out/test_core" $core_arguments
    $runner "$out/test_weights" $core_arguments
    $runner "$out/test_int8" $core_arguments
    $runner "$out/test_models" $threads_arguments
    $runner "$out/test_threads" $threads_arguments
    $runner "$out/embed"
}

# refused COMPILER FLAG PHRASE: with the flag, the compiler refuses the core with an error that has the phrase.
refused() {
    local errors=$build/refused
    echo "== refused: $1 $2"
    if $1 $2 -E -Iinclude fastrnn/core/common.h 2>"$errors" >/dev/null || ! grep -q "error.*$3" "$errors"; then
        cat "$errors" >&2
        echo "common.h did not refuse $2 with \"$3\"" >&2
        exit 1
    fi
}

cc=${CC:-gcc}
case $mode in
    plain | all)
        case $($cc -dumpmachine) in x86_64*) refused "$cc" -m32 "needs a 64-bit target" ;; esac
        refused "$cc" -U__GNUC__ "needs gcc or clang"
        make_and_run plain "$cc" "" "" "" -O3
        ;;
esac
case $mode in
    sanitize | all)
        export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1
        make_and_run sanitize "$cc" "" "" reduced -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
        ;;
esac
case $mode in
    thread | all)
        if echo 'int main(void) { return 0; }' | $cc -fsanitize=thread -x c - -o "$build/probe" 2>/dev/null && "$build/probe"; then
            make_and_run thread "$cc" "" reduced reduced -O1 -g -fsanitize=thread
        else
            echo "== thread: NOT RUN, as $cc cannot link or run programs with -fsanitize=thread"
        fi
        ;;
esac
case $mode in
    neon | all)
        if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
            make_and_run neon aarch64-linux-gnu-gcc qemu-aarch64 reduced "reduced emulated" -O3 -static
        else
            echo "== neon: NOT RUN, as aarch64-linux-gnu-gcc or qemu-aarch64 is missing"
        fi
        ;;
esac
