#!/usr/bin/env bash
# Builds the C core with step.c and times one step of a stream.
#   bench/capi/run.sh [isa]   (CC names the compiler, gcc by default)
set -eu

cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cc="${CC:-gcc} -std=c11 -O3 -ffp-contract=off -pthread -Iinclude"
case $($cc -dumpmachine) in
    x86_64*) isas="scalar scalar_f64 avx2 avx512" ;;
    aarch64* | arm64*) isas="scalar scalar_f64 neon" ;;
    *) isas="scalar scalar_f64" ;;
esac
for isa in $isas; do
    case $isa in # as ISA_FLAGS in setup.py says
        avx2) flags="-mavx2 -mfma" ;;
        avx512) flags="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma" ;;
        *) flags="" ;;
    esac
    $cc $flags -c "fastrnn/core/kernels/kernels_$isa.c" -o "$build/kernels_$isa.o"
done
for source in fastrnn/core/*.c fastrnn/core/os/*.c fastrnn/core/parallel/*.c; do
    $cc -c "$source" -o "$build/$(basename "$source" .c).o"
done
$cc bench/capi/step.c "$build"/*.o -lm -lpthread -o "$build/step"
"$build/step" "$@"
