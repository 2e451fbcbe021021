#!/bin/sh
# shared.sh folder - the shared library as README builds it, but with all headers and unoptimized, and
# seen as other languages see it (tests/shared.c): every function that is declared has its symbol.
# Built in folder by $CC; ends with "N passed, N failed".
work=$1
cc=${CC:-cc}
mkdir -p "$work"
printf '#include "eqnn_data.h"\n#include "eqnn_groups.h"\n' >"$work/all.c"

fail() { echo "0 passed, 1 failed"; exit 1; }

# Older C libraries have dlopen in a library of its own, some systems nowhere.
dl=-ldl
printf '#include <dlfcn.h>\nint main(void) { return !dlopen(0, RTLD_NOW); }\n' >"$work/probe.c"
$cc "$work/probe.c" -o "$work/probe" $dl 2>/dev/null || dl=
$cc "$work/probe.c" -o "$work/probe" $dl 2>/dev/null || {
    echo "skipped: the shared library (no dlopen)"
    echo "0 passed, 0 failed"
    exit 0
}
$cc tests/shared.c -o "$work/shared" $dl -lm || fail
$cc -O0 -fPIC -shared -DEQNN_IMPLEMENTATION -I. "$work/all.c" -o "$work/libeqnn.so" -lm || fail
# The declarations as README gives them to cffi: plain C, where nothing but EQNN_API is left of macros.
$cc -E -P -U__GNUC__ -U__clang__ -DEQNN_API=EQNN_API_HERE -I. "$work/all.c" |
    sed -n '/^typedef float eqnn_real/,$p' >"$work/declarations"
if grep -q '__' "$work/declarations" || ! test -s "$work/declarations"; then
    echo "    shared: the declarations hold more than C, or nothing: $work/declarations"
    fail
fi
# What stands before the bracket of each that EQNN_API begins.
tr '\n;' ' \n' <"$work/declarations" | sed -n 's/.*EQNN_API_HERE \([^(]*\)(.*/\1/p' | sed 's/.*[ *]//' >"$work/names"
version=$(sed -n 's/^#define EQNN_VERSION "\(.*\)"/\1/p' eqnn.h)
case $work in /*) ;; *) work=./$work ;; esac
"$work/shared" "$work/libeqnn.so" "$version" $(cat "$work/names")
