#!/usr/bin/env bash
# The ways to get the C library, each built from clean, linked with tests/capi/program.c and run. The same bits in all of them.
#   tests/capi/builds.sh quick [PYTHON]   in minutes: the Python package's library, the single file by gcc, CMake with one instruction set
#   tests/capi/builds.sh all [PYTHON]     also clang, aarch64 under qemu-user, CMake with all instruction sets, and other systems' headers
# PYTHON is an interpreter in which fastrnn is installed (python3 by default). What cannot be had here is NOT RUN, by name.
set -eu

mode=${1:-quick} python=$(command -v "${2:-python3}")
case $python in /*) ;; *) python=$PWD/$python ;; esac # as this changes the folder
case $mode in quick | all) ;; *) echo "usage: $0 quick | all [PYTHON]" >&2; exit 2 ;; esac
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cd "$build" # not in the clone, so that nothing finds its files by chance
warnings="-Wall -Wextra -Werror"
program=$root/tests/capi/program.c

fail() { echo "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null || { echo "NOT RUN: $2, as there is no $1"; return 1; }; }

# exports_only LIBRARY: a shared library exports names that begin with fastrnn_, and no others.
exports_only() {
    local others
    others=$(nm -D --defined-only "$1" | awk 'NF == 3 { print $3 }' | grep -v '^fastrnn_' || true)
    [ -z "$others" ] || fail "$1 exports $others"
    nm -D --defined-only "$1" | grep -q ' fastrnn_layer_create$' || fail "$1 does not export fastrnn_layer_create"
}

# smaller LIBRARY BYTES: stripped.
smaller() {
    strip -o stripped "$1"
    local size
    size=$(stat -L -c %s stripped)
    echo "$1: $size bytes stripped"
    [ "$size" -lt "$2" ] || fail "wanted less than $2"
}

echo "== the Python package's library"
include=$("$python" -c 'import fastrnn; print(fastrnn.get_include())')
library=$("$python" -c 'import fastrnn; print(fastrnn.get_library())')
gcc -std=c11 -O1 $warnings -I"$include" "$program" "$library" -lm -pthread -o from_python
./from_python >bits
cat bits
[ "$(wc -l <bits)" -ge 1 ]
if has pkg-config "pkg-config"; then
    export PKG_CONFIG_PATH=$(dirname "$library")/pkgconfig
    gcc -std=c11 $warnings "$program" $(pkg-config --cflags --libs fastrnn) -o by_pkg_config
    ./by_pkg_config | diff bits -
    unset PKG_CONFIG_PATH
    points_to=$("$python" -c 'import importlib.metadata as m; print(*[e.value for e in m.entry_points(group="pkg_config") if e.name == "fastrnn"])')
    [ "$points_to" = fastrnn.lib.pkgconfig ] || fail "the entry point pkg_config of fastrnn is '$points_to'"
fi

echo "== the single file: cc -O2 -c fastrnn.c"
"$python" "$root/tools/single_file.py" single
compilers=(gcc)
if [ "$mode" = all ]; then
    for clang in clang clang-14; do
        if command -v $clang >/dev/null; then compilers+=($clang); break; fi
    done
fi
for cc in "${compilers[@]}"; do
    (cd single && $cc -O2 -fPIC -c fastrnn.c) # -fPIC: of the same object, the shared library below
    $cc -std=c11 $warnings -Isingle "$program" single/fastrnn.o -lm -pthread -o from_single
    ./from_single | diff bits -
    $cc -shared single/fastrnn.o -Wl,-z,defs -lm -pthread -o single/libfastrnn.so
    exports_only single/libfastrnn.so
done
smaller single/libfastrnn.so 2000000
for options in "-DFASTRNN_ONLY_FLOAT32" "-DFASTRNN_ONLY_ISA=scalar" "-DFASTRNN_ONLY_ISA=scalar -DFASTRNN_ONLY_FLOAT32"; do
    gcc $warnings $options -fsyntax-only single/fastrnn.c
done
if has aarch64-linux-gnu-gcc "the single file on aarch64"; then
    if [ "$mode" = all ] && has qemu-aarch64 "the single file on aarch64"; then
        (cd single && aarch64-linux-gnu-gcc -O2 -c fastrnn.c -o aarch64.o)
        aarch64-linux-gnu-gcc -std=c11 $warnings -static -Isingle "$program" single/aarch64.o -lm -pthread -o on_aarch64
        qemu-aarch64 ./on_aarch64 >bits_aarch64
        cat bits_aarch64
        [ "$(awk '$1 == "scalar"' bits)" = "$(awk '$1 == "scalar"' bits_aarch64)" ] || fail "scalar code has other bits on aarch64"
        grep -q '^neon ' bits_aarch64
    else
        aarch64-linux-gnu-gcc -Wall -fsyntax-only single/fastrnn.c
    fi
fi

if has cmake "CMake"; then
    case $(gcc -dumpmachine) in x86_64*) isa=avx2 ;; aarch64*) isa=neon ;; *) isa=scalar ;; esac
    grep -q "^$isa " bits || isa=scalar
    small="-DFASTRNN_ONLY_ISA=$isa -DFASTRNN_ONLY_FLOAT32=ON"
    mkdir user
    cp "$program" user/program.c
    cat >user/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.16)
project(user C)
if(FASTRNN_SOURCE)
    add_subdirectory(${FASTRNN_SOURCE} fastrnn)
else()
    find_package(fastrnn 0.1 REQUIRED)
endif()
add_executable(program program.c)
target_link_libraries(program PRIVATE fastrnn::fastrnn)
END
    echo "== CMake, static, by add_subdirectory: $small"
    cmake -S user -B inside -DFASTRNN_SOURCE="$root" $small >/dev/null
    cmake --build inside -j "$(nproc)" >/dev/null
    inside/program $isa | tee small_bits
    [ "$(awk '{ print $2 }' small_bits)" = "$(awk -v isa=$isa '$1 == isa { print $2 }' bits)" ] || fail "other bits"

    echo "== CMake, shared, installed, by find_package: $small"
    cmake -S "$root" -B shared -DBUILD_SHARED_LIBS=ON $small -DCMAKE_INSTALL_PREFIX="$build/installed" >/dev/null
    cmake --build shared -j "$(nproc)" >/dev/null
    cmake --install shared >/dev/null
    cmake -S user -B outside -DCMAKE_PREFIX_PATH="$build/installed" >/dev/null
    cmake --build outside >/dev/null
    outside/program $isa | diff small_bits -
    installed=$(find installed -name libfastrnn.so)
    objdump -p "$installed" | grep -q 'SONAME *libfastrnn.so.[0-9]*$' || fail "no soname"
    exports_only "$installed"
    smaller "$installed" 300000
    if has pkg-config "pkg-config"; then
        found=$(PKG_CONFIG_PATH=$(dirname "$installed")/pkgconfig pkg-config --cflags --libs fastrnn)
        gcc -std=c11 $warnings "$program" $found -Wl,-rpath,"$(dirname "$build/$installed")" -o by_pkg_config
        ./by_pkg_config | diff small_bits -
    fi
    if [ "$mode" = all ]; then
        echo "== CMake, everything"
        cmake -S "$root" -B whole -DBUILD_SHARED_LIBS=ON >/dev/null
        cmake --build whole -j "$(nproc)" >/dev/null
        exports_only whole/libfastrnn.so
        smaller whole/libfastrnn.so 2000000
        gcc -std=c11 $warnings -I"$root/include" "$program" whole/libfastrnn.so -Wl,-rpath,"$build/whole" -o from_whole
        ./from_whole | diff bits -
    fi
fi

if [ "$mode" = all ]; then
    # zig has the headers of other systems' C libraries; python -m pip install ziglang
    for target in aarch64-macos x86_64-macos x86_64-windows-gnu aarch64-linux-musl; do
        if "$python" -c 'import ziglang' 2>/dev/null; then
            echo "== compile only: $target"
            "$python" -m ziglang cc -target $target -O1 -c single/fastrnn.c -o other.o
        else
            echo "NOT RUN: compile for $target, as the package ziglang is not installed"
        fi
    done
fi
echo "no error"
