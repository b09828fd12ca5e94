#!/usr/bin/env bash
# Runs each fuzz test of the module for the given time, also when one before it has
# failed; the last lines say which have.
set -euo pipefail
time=$1
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failed=()

fuzz() { go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -parallel 2 </dev/null >"$out" 2>&1; }

# Before Go 1.27 the go command now and then fails a run as its time ends, and says so
# (golang.org/issue/75804): no input has failed then, and the run is made again.
overrun() { grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input' "$out"; }

while read -r file name; do
  dir=$(dirname "$file")
  echo "fuzz $dir $name"
  if fuzz "$dir" "$name" || { overrun && fuzz "$dir" "$name"; }; then
    tail -n 2 "$out"
  else
    cat "$out"
    failed+=("$dir $name")
  fi
done < <(grep -roE '^func Fuzz[A-Z][A-Za-z0-9_]*' --include='*_test.go' . | sort | sed 's/:func / /')
[ ${#failed[@]} = 0 ] || { printf 'fuzz: FAILED: %s\n' "${failed[@]}"; exit 1; }
