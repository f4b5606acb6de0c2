#!/usr/bin/env bash
# Builds the C core with step.c and times one step of a stream.
#   bench/capi/run.sh [isa]   (CC names the compiler, gcc by default)
set -eu

cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cc="${CC:-gcc} -std=c11 -O3 -ffp-contract=off -pthread -Iinclude"
for source in $(find fastrnn/core -name '*.c' ! -name '*.inc.c'); do
    $cc -c "$source" -o "$build/$(basename "$source" .c).o"
done
$cc bench/capi/step.c "$build"/*.o -lm -lpthread -o "$build/step"
"$build/step" "$@"
