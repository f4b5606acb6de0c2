#!/usr/bin/env bash
# Feeds the C reader of files with broken files, guided by coverage, under the address and undefined-behaviour sanitizers; needs clang
# and its libFuzzer.
#   tests/capi/fuzz.sh SECONDS [CORPUS]   CORPUS: a folder with files that are right, and where new ones are kept
set -eu

seconds=${1:?usage: $0 SECONDS [CORPUS]}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for cc in clang clang-14 ""; do
    if [ -n "$cc" ] && echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | $cc -fsanitize=fuzzer -x c - -o "$build/probe" 2>/dev/null; then
        break
    fi
done
[ -n "$cc" ] || { echo "NOT RUN: fuzzing of the C reader, as there is no clang with libFuzzer"; exit 0; }
cd "$root"
# The reader is what is fuzzed: one set of kernels, of float32, without sanitizers, under which they take long to compile.
flags="-std=c11 -O1 -g -ffp-contract=off -Iinclude -DFASTRNN_ONLY_ISA=scalar -DFASTRNN_ONLY_FLOAT32"
checks="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"
$cc $flags -c fastrnn/core/kernels/kernels_scalar.c -o "$build/kernels_scalar.o" &
find fastrnn/core -name '*.c' ! -path '*/kernels/*' ! -name probe.c |
    xargs -P "$(nproc)" -I{} sh -c "$cc $flags $checks -c {} -o $build/\$(basename {} .c).o"
wait
$cc $flags $checks -fsanitize=fuzzer tests/capi/fuzz_model_file.c "$build"/*.o -lm -pthread -o "$build/fuzz"
mkdir "$build/corpus"
cp tests/data/*.safetensors "$build/corpus"
"$build/fuzz" -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=1024 -timeout=20 -print_final_stats=1 -artifact_prefix=./fuzz- \
    "${2:-$build/corpus}" "$build/corpus" 2>&1 | tail -25
