#!/usr/bin/env bash
# Runs each fuzz test of the module for the given time.
set -euo pipefail
time=$1
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | while read -r file; do
  dir=$(dirname "$file")
  grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/^func //' | while read -r name; do
    echo "fuzz $dir $name"
    go test "$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 2 </dev/null | tail -n 2
  done
done
