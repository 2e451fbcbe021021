#!/bin/sh
# run.sh command ... - runs each, shows what it prints, and ends with the sum "N passed, N failed"
# A test program says at its end how many passed; an example (examples/NAME.c) counts as one: it is run
# with the arguments that end its head, after '"make test" runs it with', or with --epochs 1, then
# once more with --resume if it takes that; and it must fail where nothing can be printed. JOBS run
# side by side, and what they print is shown in the order of the commands.
work=${EXAMPLES:-build}/run
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that wait leave the core to others

# Does the example in $1 read that option? Lessons read none.
takes() {
    case $1 in examples/*.c) ;; *) return 1 ;; esac
    grep -q 'eqnn_args_read(' "$1" && ! grep -q "{ \"$2\", NULL" "$1"
}

# Runs the command $1 of the argument $2.
run() {
    timeout 600 $1 || return
    if takes "$2" resume; then timeout 600 $1 --resume || return; fi
    [ -w /dev/full ] && takes "$2" help || return 0
    ! ${1%% *} --help > /dev/full 2>&1 || { echo "--help > /dev/full: exit status 0"; return 1; }
}

# run.sh --one NUMBER command argument: what it prints goes to $work/NUMBER.out, its exit status to
# NUMBER.status
if [ "$1" = --one ]; then
    run "$3" "$4" > "$work/$2.out" 2>&1
    echo $? > "$work/$2.status"
    exit 0
fi

# The command line of an argument, in $command.
command_of() {
    command=$1
    case $1 in
    examples/*.c)
        name=$(basename "$1" .c)
        arguments=$(sed -n '/"make test" runs it with$/,/\*\//p' "$1" | sed '1d;s/\*\///' |
            tr -s ' \n' ' ')
        [ -n "$arguments" ] || arguments="--epochs 1"
        mkdir -p "$work/$name"
        command="$EXAMPLES/$name $arguments"
        ! takes "$1" out || command="$command --out $work/$name"
        ;;
    esac
}

mkdir -p "$work"
number=0
for argument in "$@"; do
    command_of "$argument"
    number=$((number + 1))
    printf '%s\0%s\0%s\0' "$number" "$command" "$argument"
done | xargs -0 -n 3 -P "${JOBS:-1}" sh "$0" --one

passed=0 failed=0 number=0
for argument in "$@"; do
    command_of "$argument"
    number=$((number + 1))
    output=$(cat "$work/$number.out")
    status=$(cat "$work/$number.status")
    last=$(printf '%s\n' "$output" | tail -n 1)
    case $last in
    [0-9]*" passed, "[0-9]*" failed"*)
        output=$(printf '%s\n' "$output" | sed '$d')
        passed=$((passed + ${last%% passed*}))
        last=${last#* passed, }
        failed=$((failed + ${last%% failed*}))
        [ "$status" -eq 0 ] || [ "${last%% failed*}" -gt 0 ] || { status=1 failed=$((failed + 1)); }
        [ -z "$output" ] || printf '%s:\n%s\n' "$command" "$output"
        ;;
    *)
        if [ "$status" -eq 0 ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            printf '%s: exit status %s\n%s\n' "$command" "$status" "$(printf '%s\n' "$output" | tail -n 20)"
        fi
        ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
