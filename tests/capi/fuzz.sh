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
# The reader is what is fuzzed: one instruction set, whose kernels are compiled without sanitizers, which takes a tenth of the time.
plain="-std=c11 -O1 -g -ffp-contract=off -Iinclude -DFASTRNN_ONLY_ISA=scalar"
flags="$plain -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all"
find fastrnn/core -name '*.c' ! -name '*.inc.c' ! -name 'kernels_*' ! -name probe.c >"$build/sources"
xargs -P "$(nproc)" -I{} sh -c "$cc $flags -c {} -o $build/\$(basename {} .c).o" <"$build/sources"
for kernels in kernels_scalar kernels_scalar_f64; do
    $cc $plain -c fastrnn/core/kernels/$kernels.c -o "$build/$kernels.o"
done
$cc $flags -fsanitize=fuzzer tests/capi/fuzz_model_file.c "$build"/*.o -lm -pthread -o "$build/fuzz"
mkdir "$build/corpus"
cp tests/data/*.safetensors "$build/corpus"
"$build/fuzz" -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=1024 -timeout=20 -print_final_stats=1 -artifact_prefix=./fuzz- \
    "${2:-$build/corpus}" "$build/corpus" 2>&1 | tail -25
