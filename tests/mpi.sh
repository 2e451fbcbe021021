# mpi.sh - sourced by the tests that start several processes: $work is theirs
mpirun=${MPIRUN:-mpirun}

# More ranks than cores, not bound to any, that leave the core to others while they wait. Open MPI wants
# to be told twice that root may run it: here it is a test that writes to its own folder only.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

passed=0 failed=0
rm -rf "$work"
mkdir -p "$work"

# check WHAT command...: counts, and says what is wrong
check() {
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what"
    fi
}
