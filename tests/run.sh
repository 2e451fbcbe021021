#!/bin/sh
# run.sh command ... - runs each, shows what it prints, and ends with the sum "N passed, N failed"
# A test program says at its end how many passed; an example (examples/NAME.c) counts as one: it is run
# with the arguments of the line "TEST: ..." in its head, or with --epochs 1.
passed=0 failed=0
work=${EXAMPLES:-build}/run
mkdir -p "$work"
for command in "$@"; do
    case $command in
    examples/*.c)
        name=$(basename "$command" .c)
        arguments=$(sed -n 's/^.*TEST:  *\(--.*\)$/\1/p' "$command" | sed 's/ *\*\/.*//' | head -n 1)
        [ -n "$arguments" ] || arguments="--epochs 1"
        mkdir -p "$work/$name"
        command="$EXAMPLES/$name $arguments --out $work/$name"
        ;;
    esac
    output=$(timeout 600 $command 2>&1)
    status=$?
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
