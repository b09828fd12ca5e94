#!/usr/bin/env bash
# Boots a guest with soft-RoCE under QEMU's software emulation, runs one program
# in it, streams its output, and exits with its status.
#
#   guest.sh [OPTION...] BINARY [ARGUMENT...]   a program of this machine
#   guest.sh [OPTION...] -x COMMANDS            shell commands
#   guest.sh [OPTION...] -s                     a shell on this terminal
#
#   -t SECONDS     end it after this time (300)
#   -m MEGABYTES   memory (1024)
#   -c CPUS        processors (2)
#   -e NAME=VALUE  in the program's environment
#   -f FILE        also in the guest, under /t
#   -k PARAMETER   one more for the kernel
#   -d DIR -r a|b  one of two hosts on a cable: 10.77.0.1 and 10.77.0.2. In DIR are
#                  its sockets: ROLE.net, ROLE.qmp (QEMU's monitor), ROLE.cmd (the
#                  guest's /dev/vport*, for its program), and ROLE.pid
#
# Exit status beside the program's: 70 the guest ended without a verdict (a panic;
# its last lines tell), 71 QEMU failed, 124 the time was up.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 2; }

time=300 memory=1024 cpus=2 dir="" role="" shell="" commands="" append="" env=() files=()
while getopts t:m:c:e:f:k:d:r:x:s o; do
  case $o in
    t) time=$OPTARG ;;
    m) memory=$OPTARG ;;
    c) cpus=$OPTARG ;;
    e) env+=("$OPTARG") ;;
    f) files+=("$OPTARG") ;;
    k) append+=" $OPTARG" ;;
    d) dir=$OPTARG ;;
    r) role=$OPTARG ;;
    x) commands=$OPTARG ;;
    s) shell=1 ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || [ -n "$commands$shell" ] || usage

image=${NOVA_RDMA_IMAGE:-$("$here/image.sh")}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# /t of the guest, as a second archive behind the image's.
mkdir "$tmp/t"
[ ${#files[@]} = 0 ] || cp "${files[@]}" "$tmp/t/"
address=""
case $role in a) address=10.77.0.1 ;; b) address=10.77.0.2 ;; esac
echo "ADDR=$address" >"$tmp/t/env"
{
  for e in "${env[@]}"; do printf 'export %q\n' "$e"; done
  echo "cd /tmp"
  if [ -n "$shell" ]; then
    echo 'echo "exit, or Ctrl-A x, leaves"; setsid cttyhack sh'
  elif [ -n "$commands" ]; then
    printf '%s\n' "$commands"
  else
    cp "$1" "$tmp/t/program"
    shift
    printf 'exec /t/program'
    [ $# = 0 ] || printf ' %q' "$@"
    echo
  fi
} >"$tmp/t/run"
{ cat "$image/base.cpio"; (cd "$tmp" && find t | cpio -o -H newc -R 0:0 --quiet); } >"$tmp/initrd"

qemu=(qemu-system-x86_64 -M pc -accel tcg -cpu qemu64 -smp "$cpus" -m "$memory"
  -nodefaults -no-user-config -no-reboot -display none
  -device isa-debug-exit,iobase=0xf4,iosize=4
  -kernel "$image/vmlinux" -initrd "$tmp/initrd" -append "console=ttyS0 panic=-1 quiet mitigations=off$append")
if [ -n "$shell" ]; then
  rc=0
  "${qemu[@]}" -serial mon:stdio || rc=$?
  [ $rc -gt 1 ] || exit $((rc * 70))
  exit $(((rc - 65) / 2))
fi
qemu+=(-monitor none -serial stdio)
if [ -n "$role" ]; then
  other=$([ "$role" = a ] && echo b || echo a)
  qemu+=(-chardev "socket,id=cmd,path=$dir/$role.cmd,server=on,wait=off"
    -device virtio-serial-pci -device virtserialport,chardev=cmd,name=cmd
    -qmp "unix:$dir/$role.qmp,server=on,wait=off" -pidfile "$dir/$role.pid"
    -netdev "dgram,id=cable,local.type=unix,local.path=$dir/$role.net,remote.type=unix,remote.path=$dir/$other.net"
    -device "virtio-net-pci,netdev=cable,mac=52:54:00:77:00:0${address##*.},romfile=,id=nic")
fi

set +e
timeout --foreground -k 2 "$time" "${qemu[@]}" </dev/null 2>&1 | sed -u -e 's/\r*$//' -e "w $tmp/log"
rc=${PIPESTATUS[0]}
case $rc in
  1) echo "guest.sh: QEMU failed" >&2; exit 71 ;;
  124) echo "guest.sh: ended after $time s (-t)" >&2; exit 124 ;;
esac
verdict=$(sed -n 's/^guest: exit \([0-9]*\) .*/\1/p' "$tmp/log" | tail -n 1)
if [ -n "$verdict" ] && [ "$rc" = $((65 + 2 * (verdict > 31 ? 31 : verdict))) ]; then exit "$verdict"; fi
echo "guest.sh: the guest ended without a verdict (QEMU: $rc)" >&2
exit 70
