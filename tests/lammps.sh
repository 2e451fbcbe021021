#!/bin/sh
# lammps.sh FOLDER - examples/pair_eqnn.cpp, built as FOLDER/lmp_eqnn, with a model of
# FOLDER/silicon: forces are those of silicon.c, for however many ranks, threads and images, also in a
# tilted box; pressures are slopes of energies; the total energy stays; what is wrong is told. LAMMPS's own
# Stillinger-Weber says whether silicon.c learns from the right one. Ends with "N passed, N failed".
program=$1/lmp_eqnn
work=$1/lmp_eqnn.run
. "$(dirname "$0")/mpi.sh"
export OMP_NUM_THREADS=1
model=$work/model/silicon.best.safetensors

learn() {
    timeout 300 "$1/silicon" --n-train 20 --n-valid 4 --n-test 4 --epochs 20 --evals 4 --cells 2 --md 200 \
        --kelvin 600 --out "$work/model" >"$work/model.txt" 2>&1 || { tail -n 8 "$work/model.txt"; return 1; }
}

# frame WHICH: of motion.xyz, as places for LAMMPS and as forces; the third line of places holds the tilts
frame() {
    awk -v which="$1" -v data="$work/$2.data" -v forces="$work/$2.forces" '
        left == 0 { left = $1 + 1; n = $1; number++; next }
        left-- == n + 1 {
            if (number != which) next
            split($0, quoted, "\""); split(quoted[2], cell, " "); L = cell[1]
            print "silicon\n\n" n " atoms\n1 atom types\n0 " L " xlo xhi\n0 " L " ylo yhi\n0 " L " zlo zhi" >data
            print "\nMasses\n\n1 28.085\n\nAtoms # atomic\n" >data
            next
        }
        number == which { print ++i, 1, $2, $3, $4 >data; print $5, $6, $7 >forces }
        END { exit !i }' "$work/model/motion.xyz"
}

# lammps RANKS NAME: runs $work/NAME.in; what is printed is shown on a failure
lammps() {
    timeout 120 "$mpirun" -n "$1" "$program" -in "$work/$2.in" -log none >"$work/$2.txt" 2>&1 </dev/null ||
        { tail -n 8 "$work/$2.txt"; return 1; }
}

# input NAME DATA STYLE [command...]: energies, pressures and forces of places, after commands on box and atoms
input() {
    name=$1 data=$2 style=$3
    shift 3
    {
        echo "units metal"
        echo "neighbor 0.6 bin"
        echo "box tilt large"
        echo "read_data $work/$data.data"
        for line in "$@"; do echo "$line"; done
        if [ "$style" = sw ]; then
            echo "pair_style sw"
            echo "pair_coeff * * $work/si.sw Si"
        else
            echo "pair_style eqnn"
            echo "pair_coeff * * $model Si"
        fi
        echo "compute each all pe/atom"
        echo "compute sum all reduce sum c_each"
        echo "thermo_style custom step vol pe c_sum pxx pyy pzz pxy pxz pyz"
        echo "thermo_modify format float %.15g"
        echo "dump forces all custom 1 $work/$name.dump fx fy fz"
        echo "dump_modify forces sort id format float %.15g"
        echo "run 0"
    } >"$work/$name.in"
}

# forces NAME RANKS DATA STYLE [command...]
forces() {
    name=$1 ranks=$2
    shift 2
    input "$name" "$@"
    lammps "$ranks" "$name" && sed '1,/^ITEM: ATOMS/d' "$work/$name.dump" >"$work/$name.forces" &&
        awk 'found { print; exit } $1 == "Step" { found = 1 }' "$work/$name.txt" >"$work/$name.thermo"
}

# Forces of two names differ by less than that many eV/A; where the first has more atoms, they are copies.
near() {
    awk -v most="$3" '
        NR == FNR { for (a = 1; a <= 3; a++) f[NR, a] = $a; n = NR; next }
        { for (a = 1; a <= 3; a++) { d = $a - f[(FNR - 1) % n + 1, a]; if (d < 0) d = -d; if (!(d <= most)) bad = 1 } }
        END { exit bad || !n || FNR % n }' "$work/$2.forces" "$work/$1.forces" || { echo "$1 and $2 differ"; return 1; }
}

# The energy of the first is so many times that of the second, per atom as in sum, to 1e-8 of it.
same_energy() {
    cat "$work/$1.thermo" "$work/$2.thermo" | awk -v times="$3" '
        { E[NR] = $3; S[NR] = $4 }
        function off(a, b) { return (a - b) / b > 1e-8 || (a - b) / b < -1e-8 }
        END { exit NR != 2 || off(E[1], times * E[2]) || off(S[1], E[1]) || off(S[2], E[2]) }'
}

# slope COLUMN NAME: that pressure (7: the mean of 5, 6, 7) is -dE/dV of NAME.minus and NAME.plus, strained by
# 1e-3 each; or, of a shear, -dE/d(strain)/V. Bar; LAMMPS's unit is 1.6021765e6 bar.
slope() {
    cat "$work/$2.thermo" "$work/$2.minus.thermo" "$work/$2.plus.thermo" | awk -v k="$1" '
        { V[NR] = $2; E[NR] = $3; p[NR] = k == 7 ? ($5 + $6 + $7) / 3 : $k }
        END {
            dV = k == 7 ? V[3] - V[2] : 2e-3 * V[1]
            slope = -(E[3] - E[2]) / dV * 1602176.5
            d = slope - p[1]; if (d < 0) d = -d
            size = p[1] < 0 ? -p[1] : p[1]
            print "pressure " p[1] " bar, slope of the energy " slope
            exit NR != 3 || !(d < 30 + .002 * size)
        }' >"$work/$2.slope" || { cat "$work/$2.slope"; return 1; }
}

# The total energy of 300 fs, in which the crystal goes from one rank to the other and lists are made anew:
# its means in the first and the last third differ by less than .1 meV an atom.
conserves() {
    sed '/^compute/,$d' "$work/one.in" >"$work/nve.in"
    cat >>"$work/nve.in" <<'END'
velocity all create 600 1 loop geom
velocity all set 20 30 40 sum yes
fix 1 all nve
thermo 10
thermo_style custom step temp etotal
thermo_modify format float %.15g
run 300
END
    lammps 2 nve && awk '$1 == "Loop" { go = 0 } go { n++; if (n > 10 && n <= 20) next
        if (n <= 10) a += $3 / 10; else { b += $3; m++ } } $1 == "Step" { go = 1 }
        END { d = (b / m - a) / 64; exit m < 10 || !(d < 1e-4 && d > -1e-4) }' "$work/nve.txt"
}

# refused SENTENCE sed-command: the input of one rank, changed, fails with that
refused() {
    sed "$2" "$work/one.in" >"$work/refused.in"
    ! timeout 60 "$mpirun" -n 2 "$program" -in "$work/refused.in" -log none >"$work/refused.txt" 2>&1 </dev/null &&
        grep -q "$1" "$work/refused.txt" || { tail -n 4 "$work/refused.txt"; return 1; }
}

# Stillinger and Weber's numbers, as LAMMPS reads them
echo "Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -.3333333333333333 7.049556277 .6022245584 4 0 0" >"$work/si.sw"

check "a model" learn "$1"
check "the frame of the truth" frame 1 truth
check "the frame of the network" frame 2 network
check "LAMMPS's Stillinger-Weber" forces sw 1 truth sw
check "gives the forces of silicon.c" near sw truth 1e-9
check "1 rank" forces one 1 network eqnn
check "gives the forces of silicon.c" near one network 3e-5
for ranks in 2 3; do
    check "$ranks ranks" forces "ranks$ranks" $ranks network eqnn
    check "give the forces of 1" near "ranks$ranks" one 3e-5
    check "give the energy of 1" same_energy "ranks$ranks" one 1
done
export OMP_NUM_THREADS=2
check "2 threads" forces threads 1 network eqnn
check "give the bits of 1" cmp -s "$work/threads.forces" "$work/one.forces"
export OMP_NUM_THREADS=1
check "8 copies" forces copies 2 network eqnn "replicate 2 2 2"
check "give the forces of 1" near copies one 3e-5
check "give the energy of 8" same_energy copies one 8

# The lattice vectors a, b + a, c make the same crystal; a box that atoms meet their own images in.
sed 's/^0 \([0-9.]*\) zlo zhi/&\n\1 0 0 xy xz yz/' "$work/network.data" >"$work/tilted.data"
check "a tilted box" forces tilted 2 tilted eqnn
check "gives the forces of the cube" near tilted one 3e-5
check "a cube of 8 atoms" forces cube 1 network eqnn "region small block 0 5.43 0 5.43 0 5.43" \
    "group small region small" "group large subtract all small" "delete_atoms group large" \
    "change_box all x final 0 5.6 y final 0 5.7 z final 0 5.8"
check "and 27 of them" forces cubes 2 network eqnn "region small block 0 5.43 0 5.43 0 5.43" \
    "group small region small" "group large subtract all small" "delete_atoms group large" \
    "change_box all x final 0 5.6 y final 0 5.7 z final 0 5.8" "reset_atom_ids" "replicate 3 3 3"
check "give the same energies" same_energy cubes cube 27

tilt="change_box all triclinic"
for sign in minus plus; do
    h=$([ $sign = plus ] && echo 1 || echo -1)
    side=$(awk "BEGIN { print 1 + $h * 1e-3 }")
    shift_by=$(awk -v h="$h" '/xhi/ { print h * 1e-3 * $2 }' "$work/network.data")
    check "a strained box" forces "one.$sign" 1 network eqnn "change_box all x scale $side y scale $side z scale $side remap"
    check "a sheared box" forces "shear.$sign" 2 network eqnn "$tilt" "change_box all xy final $shift_by remap"
done
check "the pressure is the slope of the energy" slope 7 one
check "1 rank, triclinic" forces shear 1 network eqnn "$tilt"
check "the shear stress is the slope of the energy" slope 8 shear
check "the total energy stays" conserves

check "other units" refused "needs units metal" "s/^units metal/units real/"
check "another element" refused "knows Si, not Ge" "s/safetensors Si/safetensors Ge/"
check "no element" refused "for each of 1 types" "s/safetensors Si/safetensors/"
check "no file" refused "none.safetensors" "s/^pair_coeff.*/pair_coeff * * none.safetensors Si/"
check "another file" refused "safetensors" "s/^pair_coeff.*/pair_coeff * * README.md Si/"
check "newton off" refused "newton on" "1i newton off"
check "virials of atoms" refused "not of each atom" "s/^compute each.*/compute each all stress\/atom NULL/;s/c_each/c_each[1]/"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
