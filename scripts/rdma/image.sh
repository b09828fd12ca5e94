#!/usr/bin/env bash
# Prints the folder of the guest's image, vmlinux and base.cpio, after building
# it when it is not there: Debian's own kernel with rdma_rxe, busybox, the verbs
# libraries and tools of this machine. Nothing is installed, and no root is needed.
#
# The image is kept under .cache/rdma by the hash of what it is made from.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/rdma

modules="crc32_generic rdma_rxe ib_uverbs rdma_ucm dummy veth virtio_pci virtio_net virtio_console sch_netem"
tools="busybox ip tc rdma ibv_devices ibv_devinfo ibv_rc_pingpong ibv_asyncwatch rping
  ib_write_lat ib_write_bw ib_send_lat ib_send_bw ib_read_lat ib_read_bw"
# Loaded by name at run time, so that no tool's list of libraries has them.
libraries="/usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so /usr/lib/x86_64-linux-gnu/librdmacm.so.1
  /lib/x86_64-linux-gnu/libgcc_s.so.1 /lib/x86_64-linux-gnu/libpthread.so.0 /lib/x86_64-linux-gnu/libresolv.so.2"

PATH=$PATH:/usr/sbin:/sbin
kernel=$(apt-cache depends linux-image-amd64 | awk '$1=="Depends:"{print $2; exit}')
[ -n "$kernel" ] || { echo "image: apt-cache knows no linux-image-amd64: apt-get update" >&2; exit 1; }
version=$(apt-cache show "$kernel" | awk '$1=="Version:"{print $2; exit}')

key=$({ cat "$here/image.sh" "$here/init"; echo "$kernel $version"; dpkg-query -W $("$here/packages.sh" --list) libc6; } |
  sha256sum | cut -c1-16)
image=$cache/$key
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -e "$image/base.cpio" ]; then touch "$image"; echo "$image"; exit 0; fi

echo "image: building $image from $kernel $version" >&2
find "$cache" -mindepth 1 -maxdepth 1 -type d \( -mtime +7 -o -name 'new.*' \) -exec rm -rf {} +
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
cd "$new"

apt-get -q -o APT::Sandbox::User=root download "$kernel=$version" >&2
dpkg-deb --fsys-tarfile "$kernel"_*.deb | tar -x --wildcards './boot/vmlinuz-*' './lib/modules/*'
kv=$(ls lib/modules)

# QEMU boots the unpacked kernel by PVH, in half the time of the bzImage. The
# payload is one xz stream somewhere in it; what follows is not xz, so that xz
# complains at the end.
for at in $(LC_ALL=C grep -obUaP '\xFD7zXZ\x00' "boot/vmlinuz-$kv" | cut -d: -f1); do
  tail -c +$((at + 1)) "boot/vmlinuz-$kv" | xz -dc >vmlinux 2>/dev/null || true
  [ "$(head -c4 vmlinux | tail -c3)" != ELF ] || break
done
[ "$(head -c4 vmlinux | tail -c3)" = ELF ] || { echo "image: no xz payload in boot/vmlinuz-$kv" >&2; exit 1; }

root=$new/root
mkdir -p "$root"/{dev,proc,sys,tmp,root,etc/libibverbs.d,t,usr/bin,usr/sbin,usr/lib/x86_64-linux-gnu,usr/lib64}
for d in bin sbin lib lib64; do ln -s "usr/$d" "$root/$d"; done

depmod -b "$new" "$kv"
for m in $modules; do modprobe -d "$new" -S "$kv" --show-depends "$m"; done | awk '$1=="insmod"{print $2}' | sort -u |
  while read -r ko; do install -D -m 644 "$ko" "$root/usr/lib/modules/$kv/$(basename "$ko")"; done
cp lib/modules/"$kv"/modules.{order,builtin,builtin.modinfo} "$root/usr/lib/modules/$kv/"
depmod -b "$root" "$kv"

# put copies a file to its place without symbolic links, and what it links with.
put() {
  local f=$1
  [ ! -e "$root$f" ] || return 0
  install -D -m 755 "$f" "$root$f"
  { ldd "$f" 2>/dev/null || true; } | awk '{for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i}' |
    while read -r lib; do put "$lib"; done
}
for t in $tools; do put "$(command -v "$t")"; done
for l in $libraries; do put "$l"; done
cp /etc/libibverbs.d/rxe.driver "$root/etc/libibverbs.d/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
install -m 755 "$here/init" "$root/init"

(cd root && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --quiet) >base.cpio
rm -rf boot lib root ./*.deb
chmod 755 "$new"
mv "$new" "$image"
echo "$image"
