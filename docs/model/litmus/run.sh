#!/usr/bin/env bash
# Runs each litmus test of checks.txt with herd7 and its model of arm64, and compares
# the verdict. Without herd7 (opam install herdtools7) it says by name what did not run.
set -euo pipefail
cd "$(dirname "$0")"
lines=$(grep -vE '^(#|$)' checks.txt)
listed=$(awk '{print $2 ".litmus"}' <<<"$lines" | sort)
diff <(ls ./*.litmus | sed 's|^\./||' | sort) <(echo "$listed") >&2 || { echo "litmus: checks.txt and the files differ" >&2; exit 1; }
if ! command -v herd7 >/dev/null; then
	echo "litmus: no herd7, not run:" $(awk '{print $2}' <<<"$lines")
	exit 0
fi
failed=0
while read -r want name; do
	out=$(herd7 "$name.litmus" 2>&1) || true
	read -r got seen others < <(sed -n "s/^Observation [^ ]* //p" <<<"$out") || true
	printf '%-9s %-24s %s\n' "${got:-nothing}" "$name" "${seen:-0} of $((${seen:-0} + ${others:-0})) executions"
	if [ "${got,,}" != "$want" ]; then
		echo "litmus: $name should be: $want" >&2
		echo "$out" >&2
		failed=1
	fi
done <<<"$lines"
exit $failed
