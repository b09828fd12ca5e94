#!/usr/bin/env bash
# Checks every model, and that every broken variant fails: one line of checks.txt
# each, as many at once as there are processors; then the litmus tests of arm64.
# Spin is installed when it is missing and this runs as root on a system with apt.
set -euo pipefail
cd "$(dirname "$0")"
if ! command -v spin >/dev/null; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		(apt-get update -q && apt-get install -y -q --no-install-recommends spin gcc libc6-dev) >/dev/null
	else
		echo "models: no spin: install it (Debian: apt install spin)" >&2
		exit 1
	fi
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check VERDICT MODEL DEFINES...: the verdict is "holds" or "fails".
check() {
	local want=$1 model=$2 dir line got why
	shift 2
	dir=$(mktemp -d "$work/XXXXXX")
	cp memory.pml "$model.pml" "$dir"
	cd "$dir"
	spin -a "${@/#/-D}" "$model.pml" >log 2>&1 || { cat log; return 1; }
	cc -O1 -w -DSAFETY -DMEMLIM=2000 -o pan pan.c
	./pan -m100000 >out 2>&1 || true
	line=$(grep -o 'errors: [0-9]*' out || true)
	case $line in
	"errors: 0") got=holds ;;
	"errors: "*) got=fails ;;
	esac
	if grep -q 'Search not completed\|search depth too small' out && [ "${got-}" = holds ]; then
		got=cut
	fi
	why=
	[ "${got-}" = holds ] || why=$(grep -om1 'assertion violated.*(at\|invalid end state (at' out | sed 's/ (at.*//' || true)
	printf '%-7s %-6s %-44s %9s states  %s\n' "$got" "$model" "$*" \
		"$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' out)" "$why"
	if [ "$got" != "$want" ]; then
		echo "models: $model $* should be: $want" >&2
		tail -n 40 out >&2
		return 1
	fi
}
export -f check
export work
grep -vE '^(#|$)' checks.txt | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'check {}'
./litmus/run.sh
