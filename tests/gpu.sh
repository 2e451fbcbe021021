#!/bin/sh
# gpu.sh STEP ... - what only a GPU can tell, one step after the other; the steps are
#   build     kernels for the GPU that is here, tests and benchmarks, float and double
#   plain     the tests in float without graphs, each kernel waited for: a failure names its operation
#   test      tests as programs run, graphs included; golden numbers of tests/golden and GOLDEN="folders"
#   sanitize  compute-sanitizer's memcheck, racecheck, synccheck and initcheck on a few tests
#   bench     times, and the shares of the copy bandwidth that products and harmonics reach
#   ways      times of products when kernels choose otherwise: dx never summed apart, more items of a block
# None given: all of them. DEVICE (cuda) says where; LIMIT (280) is the most seconds of a program. What was
# printed stays in OUT (build/gpu). Ends with "N passed, N failed"; times fail nothing.
device=${DEVICE:-cuda}
out=${OUT:-build/gpu}
limit=${LIMIT:-280}
# Programs whose tests take EQNN_DEVICE and use most of the kernels.
tests="tape kernels forms equivariant frame grids graphs attention models equiformer equiformer_v1 equiformer_v2 escn
       emlp lieconv lietransformer training ode reversible"
cuda=1
[ "$device" = cpu ] && cuda=0 # to try this script
passed=0 failed=0
mkdir -p "$out"

# run NAME command...: its output goes to OUT/NAME; tests are counted by their last line, others count as one
run() {
    name=$1
    shift
    timeout "$limit" "$@" >"$out/$name" 2>&1
    status=$?
    last=$(grep -E "^[0-9]+ passed, [0-9]+ failed" "$out/$name" | tail -n 1)
    good=${last%% *} bad=${last#*, } bad=${bad%% *}
    [ -n "$last" ] || good=$((status == 0))
    [ $status -eq 0 ] || [ "${bad:-0}" -gt 0 ] || bad=1
    passed=$((passed + good)) failed=$((failed + ${bad:-0}))
    [ $status -ne 0 ] || { echo "ok      $name${last:+: $last}"; return; }
    echo "FAILED  $name: exit status $status"
    tail -n 6 "$out/$name"
}

build() {
    for real in f32 f64; do
        programs=
        for t in $tests golden bench; do programs="$programs build/$real/$t"; done
        run "build_$real" make -s -j "$(nproc)" CUDA=$cuda $([ $real = f64 ] && echo DOUBLE=1) $programs
    done
}

plain() {
    programs=
    for t in $tests; do programs="$programs build/plain/f32/$t"; done
    run build_plain make -s -j "$(nproc)" CUDA=$cuda BUILD=build/plain \
        NVFLAGS="-O1 -arch=native -DEQNN__GRAPH_LEAST=65" $programs
    for t in $tests; do
        run "plain_$t" env EQNN_DEVICE="$device" CUDA_LAUNCH_BLOCKING=1 "build/plain/f32/$t"
    done
}

whole() {
    for real in f32 f64; do
        for t in $tests; do run "test_${t}_$real" env EQNN_DEVICE="$device" "build/$real/$t"; done
        for d in tests/golden $GOLDEN; do
            run "golden_$(basename "$d")_$real" env EQNN_DEVICE="$device" "build/$real/golden" -q "$d"
        done
    done
}

sanitize() {
    command -v compute-sanitizer >/dev/null || { echo "skipped: no compute-sanitizer"; return; }
    for tool in memcheck racecheck synccheck initcheck; do
        for t in forms equivariant grids graphs escn training; do
            run "${tool}_$t" env EQNN_DEVICE="$device" compute-sanitizer --tool $tool --error-exitcode 9 "build/f32/$t"
        done
    done
}

# Bytes that the cheapest way moves, by the time that was taken, by what a copy reaches
shares() {
    awk -F '\t' '$6 == "machine" && $13 > 0 && $13 / $7 > copy { copy = $13 / $7 }
        /^(sh_|tp_|contraction_)/ && $13 > 0 { n++; what[n] = $1 " " $2 " " $3 " " $6 ", " $5; us[n] = $7 / 1000; speed[n] = $13 / $7 }
        END { printf "copy: %.0f GB/s\n", copy
              for (i = 1; i <= n && copy; i++) printf "%-52s %10.1f us %5.0f %%\n", what[i], us[i], 100 * speed[i] / copy }' "$@"
}

bench() {
    for rows in 100000 1000000; do
        run "bench_$rows" env EQNN_DEVICE="$device" BENCH_ROWS=$rows BENCH_POINTS=$((10 * rows)) BENCH_SAMPLES=9 build/f32/bench
        shares "$out/bench_$rows" | tee "$out/shares_$rows"
    done
    grep '^net_' "$out/bench_100000" | cut -f 1,2,5,7
}

ways() {
    for way in "" -DEQNN__FORM_LONG=1000000 -DEQNN__FORM_EDGES=48; do
        choice=way$(echo "${way#-DEQNN__}" | tr = _)
        dir=build/$choice
        run "build_$choice" make -s CUDA=$cuda BUILD="$dir" NVFLAGS="-O3 -arch=native $way" "$dir/f32/bench"
        run "bench_$choice" env EQNN_DEVICE="$device" BENCH_ROWS=100000 BENCH_SAMPLES=9 BENCH_FILTER=tp_ "$dir/f32/bench"
        echo "$choice"
        grep '^tp_' "$out/bench_$choice" | cut -f 1,2,5-7
    done
}

for step in ${@:-build plain test sanitize bench ways}; do
    echo "== $step"
    case $step in
    test) whole ;;
    build | plain | sanitize | bench | ways) $step ;;
    *) echo "gpu.sh: there is no step '$step'"; failed=$((failed + 1)) ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
