#!/usr/bin/env bash
# Builds the C core with tests/capi/test_*.c and embed.c, and runs them; checks the header and the example in it.
#   tests/capi/run.sh [plain | short | sanitize | thread | neon | all]   (CC names the compiler, gcc by default; "short" is "plain" with
#   fewer sizes and rounds, as the others have)
set -eu

mode=${1:-all}
case $mode in
    plain | short | sanitize | thread | neon | all) ;;
    *) echo "usage: $0 [plain | short | sanitize | thread | neon | all]" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
warnings="-std=c11 -Wall -Wextra -Werror -ffp-contract=off -pthread -Iinclude"

# Functions that wrapped.h replaces.
wrapped=malloc,--wrap=calloc,--wrap=aligned_alloc,--wrap=free,--wrap=pthread_create,--wrap=fr_seconds

# The programs, and those that take "emulated", and replace functions.
programs="test_core test_weights test_int8 test_models test_threads test_errors test_sizes test_realtime embed"

# make_and_run NAME COMPILER RUNNER ARGUMENTS FLAGS...   (ARGUMENTS of the programs: "reduced": fewer sizes and rounds; "emulated"
# leaves out what an emulator cannot do)
make_and_run() {
    local name=$1 cc=$2 runner=$3 arguments=$4 out=$build/$1 program
    shift 4
    echo "== $name: $cc $*"
    mkdir "$out"
    find fastrnn/core -name '*.c' ! -name '*.inc.c' | # several at a time
        xargs -P "$(nproc)" -I{} sh -c "$cc $warnings $* -c {} -o $out/\$(basename {} .c).o"
    for program in $programs; do
        case $program in
            test_models | test_threads) wraps=-Wl,--wrap=$wrapped ;;
            *) wraps= ;;
        esac
        $cc $warnings "$@" "tests/capi/$program.c" "$out"/*.o -lm -ldl $wraps -o "$out/$program"
    done
    for program in $programs; do
        $runner "$out/$program" $arguments
    done
}

# The header, alone, is C11 and C++11 without warnings, and the example in its first comment, compiled and run.
check_header() {
    local cc=$1 objects=$2 out=$build/header
    mkdir "$out"
    echo "== the header: as C11 and C++11, and its example"
    $cc -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c include/fastrnn.h
    if $cc -x c++ -std=c++11 -fsyntax-only - </dev/null 2>/dev/null; then
        $cc -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ include/fastrnn.h
    else
        echo "NOT RUN: C++, as $cc has no C++ compiler"
    fi
    sed -n 's/^ \*   //p' include/fastrnn.h | sed -n '/^#include <fastrnn/,/^}/p' >"$out/example.c"
    [ "$(grep -c . "$out/example.c")" -le 16 ]
    $cc $warnings "$out/example.c" "$objects"/*.o -lm -o "$out/example"
    cp tests/data/stream.safetensors "$out/model.safetensors"
    # Eight zeros, and again: a linear op of weights 1 and bias 0.25 after an RNN of weights 0.
    [ "$(cd "$out" && head -c 64 /dev/zero | ./example)" = "$(printf '0.25\n0.25')" ]
    [ "$(cd "$out" && rm model.safetensors && ./example)" = "model.safetensors cannot be opened" ]
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
    plain | short | all)
        case $($cc -dumpmachine) in x86_64*) refused "$cc" -m32 "needs a 64-bit target" ;; esac
        refused "$cc" "-U__GNUC__ -U__clang__" "needs gcc or clang"
        refused "$cc" "-U__clang__ -D_MSC_VER" "which MSVC does not have"
        refused "$cc" -ffast-math "needs exact arithmetic"
        if [ "$mode" = short ]; then fewer=reduced; else fewer=; fi
        make_and_run plain "$cc" "" "$fewer" -O3
        check_header "$cc" "$build/plain"
        ;;
esac
case $mode in
    sanitize | all)
        export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1
        make_and_run sanitize "$cc" "" reduced -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
        ;;
esac
case $mode in
    thread | all)
        if echo 'int main(void) { return 0; }' | $cc -fsanitize=thread -x c - -o "$build/probe" 2>/dev/null && "$build/probe"; then
            # One instruction set: threads share kernels of every set in the same way, and each run takes minutes.
            case $($cc -dumpmachine) in x86_64*) isa=avx2 ;; *) isa=scalar ;; esac
            programs="test_core test_models test_threads test_realtime" make_and_run thread "$cc" "" reduced -O1 -g1 -fsanitize=thread -DFASTRNN_ONLY_ISA=$isa
        else
            echo "== thread: NOT RUN, as $cc cannot link or run programs with -fsanitize=thread"
        fi
        ;;
esac
case $mode in
    neon | all)
        if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null; then
            make_and_run neon aarch64-linux-gnu-gcc qemu-aarch64 "reduced emulated" -O3 -static -DLINKED_STATICALLY
        else
            echo "== neon: NOT RUN, as aarch64-linux-gnu-gcc or qemu-aarch64 is missing"
        fi
        ;;
esac
