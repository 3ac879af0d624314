#!/bin/bash
# Runs the lists of tests given: each line of a list is a step, `name | command`. Every step runs, whatever
# became of those before it. A step that runs cargo tests must show that it ran some and skipped none; a list
# that cannot be read, or a step without a verdict, is a failure.
#
# Ends with why what failed did, and the line 'N passed, N failed'; exit code 0 when nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1
export JOULE_LOGS=${JOULE_LOGS:-$PWD/target/joule}
mkdir -p "$JOULE_LOGS"
passed=0
failed=0
reasons=

# What a log of cargo's test runner proves: the number of tests that ran, or a complaint.
ran() {
	awk '
		/^ *Running |^ *Doc-tests / { suite = $0; sub(/^ */, "", suite) }
		/^test result: / {
			if ($3 != "ok.") bad = suite ": " $0
			if ($8 != 0) bad = suite ": skips " $8 " tests"
			count += $4
			suites++
		}
		END {
			if (bad) { print bad; exit 1 }
			if (!suites || !count) { print "no test ran"; exit 1 }
			print count " tests in " suites " suites"
		}' "$1"
}

# The failed tests of a log, each with its complaint; the log's end where no test failed.
why() {
	awk '
		/^---- .* stdout ----$/ { print; shown = 1 }
		/^thread .* panicked at / { lines = 16 }
		/^stack backtrace:/ { lines = 0 }
		lines-- > 0 { print "    " substr($0, 1, 300) }
		END { exit !shown }' "$1" || tail -n 12 "$1"
}

for list in "$@"; do
	[ -r "$list" ] || { echo "$list: cannot be read"; exit 1; }
	while IFS='|' read -r name command; do
		name=${name// /}
		case $name in '' | \#*) continue ;; esac
		log=$JOULE_LOGS/test-$name.log
		start=$SECONDS
		printf '%-12s ' "$name"
		bash -c "$command" >"$log" 2>&1 </dev/null
		code=$?
		verdict=
		[ $code = 0 ] || verdict="exit code $code"
		case $command in
		*'cargo test'*) note=$(ran "$log") || verdict=${verdict:-$note} ;;
		*) note= ;;
		esac
		if [ -z "$verdict" ]; then
			passed=$((passed + 1))
			printf 'ok      %4d s  %s\n' $((SECONDS - start)) "$note"
		else
			failed=$((failed + 1))
			printf 'FAILED  %4d s  %s; see %s\n' $((SECONDS - start)) "$verdict" "$log"
			reasons+="$name: $verdict"$'\n'$(why "$log" | sed 's/^/    /')$'\n'
		fi
	done <"$list"
done

if [ "$*" = tests/list ]; then
	echo 'Only make test-full runs, besides:'
	sed -n 's/^# *only in full: /    /p' tests/list-full
fi
printf '%s' "$reasons"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
