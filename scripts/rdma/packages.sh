#!/usr/bin/env bash
# Sees to it that the packages are there which the guest and the build with
# -tags verbs need: installs them as root on Debian. When that cannot be, prints
# one line, why and how to get them, and exits with 1.
set -euo pipefail

packages=(gcc libc6-dev libibverbs-dev librdmacm-dev
  qemu-system-x86 busybox-static kmod cpio xz-utils iproute2
  rdma-core ibverbs-providers ibverbs-utils rdmacm-utils perftest)

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${packages[@]}"
  exit
fi

no() { echo "$1"; exit 1; }
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || no "the guest runs on Linux on x86-64 only: use such a machine"
command -v apt-get >/dev/null || no "this is no Debian: run it in a container of debian:bookworm, as root"

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
kernel() { apt-cache depends linux-image-amd64 2>/dev/null | grep -q Depends:; }
if [ ${#missing[@]} = 0 ] && kernel; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
  [ ${#missing[@]} != 0 ] || no "no list of Debian's packages: as root, apt-get update"
  no "packages are missing and this is not root: apt-get update && apt-get install --no-install-recommends ${missing[*]}"
fi
{
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
} >&2 || no "apt-get failed (its output is above): see to a network or a mirror, or install ${missing[*]} by hand"
kernel || no "apt-get knows no linux-image-amd64: add Debian's main archive to its sources"
