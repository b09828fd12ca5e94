#!/usr/bin/env bash
# Makes each of the given targets, also when one before it has failed; says in the last
# lines how each ended and what it took, and fails when one has.
set -uo pipefail
ends=()
failed=0
for target in "$@"; do
  echo "== $target"
  start=$SECONDS
  if "${MAKE:-make}" --no-print-directory "$target"; then
    end=ok
  else
    end=FAILED
    failed=$((failed + 1))
  fi
  ends+=("$(printf '%-14s %-6s %6d s' "$target" "$end" $((SECONDS - start)))")
done
printf '%s\n' "== ends" "${ends[@]}"
[ "$failed" = 0 ] || { echo "$failed of $# failed"; exit 1; }
