#!/bin/sh
# Lays a stock Debian kernel and a small initramfs for it into build/vm: what the VM lane boots.
# The kernel package is unpacked there and never installed: this machine's boot loader is not touched.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/build/vm
[ "$out/ready" -nt "$root/setup/vm-init" ] && [ "$out/ready" -nt "$root/setup/vm.sh" ] && exit 0
rm -rf "$out"
mkdir -p "$out/package" "$out/initramfs/bin" "$out/initramfs/modules" "$out/initramfs/proc" "$out/initramfs/sys" "$out/initramfs/dev" "$out/initramfs/mnt"

echo "setup: a stock Debian kernel for the VM lane"
package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
[ -n "$package" ] || { apt-get update -q >/dev/null; package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'); }
cd "$out"
# A list that is older than the mirror names versions that are gone.
apt-get download -q "$package" >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get download -q "$package" >/dev/null; }
dpkg-deb -x ./*.deb package
rm ./*.deb
release=$(ls "$out/package/lib/modules")
mv "$out/package/lib/modules" "$out/modules"
mv "$out/package/boot/vmlinuz-$release" "$out/vmlinuz"
rm -rf "$out/package"
# The package leaves the module index to its post-installation script.
mkdir -p "$out/base/lib" && ln -s ../../modules "$out/base/lib/modules"
depmod -b "$out/base" "$release"
rm -rf "$out/base"

# The root file system comes over 9p: its modules are all that the initramfs has to carry.
list=
for module in virtio_pci 9pnet_virtio 9p overlay; do
  wanted=$(awk -F: -v name="/$module.ko" 'index($1, name) { n = split($2, deps, " "); for (i = n; i > 0; i--) print deps[i]; print $1 }' "$out/modules/$release/modules.dep")
  list="$list $wanted"
done
for file in $list; do
  name=$(basename "$file")
  [ -e "$out/initramfs/modules/$name" ] || echo "$name" >>"$out/initramfs/modules/order"
  cp "$out/modules/$release/$file" "$out/initramfs/modules/$name"
done
cp /bin/busybox "$out/initramfs/bin/busybox"
cp "$root/setup/vm-init" "$out/initramfs/init"
chmod +x "$out/initramfs/init"
(cd "$out/initramfs" && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initramfs.gz"
rm -rf "$out/initramfs"
touch "$out/ready"
