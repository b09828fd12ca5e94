#!/usr/bin/env bash
# Installs what `make test` needs beyond Go: a C compiler, and staticcheck of the
# given version (into the module cache; `go run` finds it there).
set -euo pipefail
version=$1
if ! command -v cc >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev
  else
    echo "tools: no C compiler (cc): the tests that pair with C say so and are skipped; install gcc or clang to run them" >&2
  fi
fi
go mod download
go run "honnef.co/go/tools/cmd/staticcheck@$version" -version
