#!/bin/sh
# ddp.sh PROGRAM - examples/ddp_mpi.c, built as PROGRAM, by 1, 2 and 3 ranks: the same to rounding, with
# --exact to the bit, also when a run goes on with other ranks than it began with; and a rank that
# fails does not leave the others waiting. Ends with "N passed, N failed"; counts nothing without MPI.
program=$1
work=$1.run
mpirun=${MPIRUN:-mpirun}

for tool in "${MPICC:-mpicc}" "$mpirun"; do
    command -v "$tool" >/dev/null && continue
    echo "skipped: no $tool"
    echo "0 passed, 0 failed"
    exit 0
done

. "$(dirname "$0")/mpi.sh"

# run RANKS NAME options...: everything goes to the folder NAME; what is printed is shown on a failure
run() {
    ranks=$1 name=$2
    shift 2
    timeout 120 "$mpirun" -n "$ranks" "$program" --systems 90 --batch 20 --out "$work/$name" "$@" \
        >"$work/$name.txt" 2>&1 </dev/null || { tail -n 8 "$work/$name.txt"; return 1; }
}

# The errors of all epochs differ by less than 1e-5 of themselves, and there are four.
near() {
    paste -d , "$work/$1/log.csv" "$work/$2/log.csv" | awk -F , '
        NR > 1 { n++; d = $2 - $4; if (d < 0) d = -d; if (!($2 > 0) || d > 1e-5 * $2) bad = 1 }
        END { exit bad || n != 4 }'
}

# The same errors, and the same number made of all weights.
same() {
    cmp -s "$work/$1/log.csv" "$work/$2/log.csv" && grep '^weights' "$work/$1.txt" >"$work/weights" &&
        grep '^weights' "$work/$2.txt" | cmp -s - "$work/weights"
}

# Rank 0 cannot make its folder: it says so and all end, long before the time is up.
fails() {
    timeout 60 "$mpirun" -n 2 "$program" --epochs 1 --out /dev/null/folder >"$work/fails.txt" 2>&1 </dev/null
    status=$?
    [ $status -ne 0 ] && [ $status -ne 124 ] && grep -q "rank 0 of 2: cannot make" "$work/fails.txt"
}

for ranks in 1 2 3; do
    check "$ranks ranks" run $ranks "mean$ranks" --epochs 4
    check "$ranks ranks, exact" run $ranks "exact$ranks" --epochs 4 --exact
done
check "1 and 2 ranks agree to rounding" near mean1 mean2
check "1 and 3 ranks agree to rounding" near mean1 mean3
check "exact and not agree to rounding" near mean1 exact1
check "1 and 2 ranks agree to the bit" same exact1 exact2
check "1 and 3 ranks agree to the bit" same exact1 exact3
check "2 ranks, exact, begin" run 2 resumed --epochs 2 --exact
check "3 ranks, exact, go on" run 3 resumed --epochs 4 --exact --resume
check "which gives the bits of one rank" same exact1 resumed
check "a rank that fails ends the others" fails
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
