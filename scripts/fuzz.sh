#!/usr/bin/env bash
# Runs each fuzz test of the module for the given time.
set -euo pipefail
time=$1
out=$(mktemp)
trap 'rm -f "$out"' EXIT

fuzz() { go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -parallel 2 </dev/null >"$out" 2>&1; }

# Before Go 1.27 the go command now and then fails a run as its time ends, and says so
# (golang.org/issue/75804): no input has failed then, and the run is made again.
overrun() { grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input' "$out"; }

grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | while read -r file; do
  dir=$(dirname "$file")
  grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/^func //' | while read -r name; do
    echo "fuzz $dir $name"
    fuzz "$dir" "$name" || { overrun && fuzz "$dir" "$name"; } || { cat "$out"; exit 1; }
    tail -n 2 "$out"
  done
done
