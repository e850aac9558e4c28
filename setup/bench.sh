#!/bin/sh
# What `make bench` measures against: installed for benchmarks only, from Debian.
set -eu
here=$(dirname "$0")
have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing=
for package in sockperf wrk wireguard-tools charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins; do
  have "$package" || missing="$missing $package"
done
# The peer's current release, not the one that Debian 12 froze: it has the offloads that make it fast.
backports=/etc/apt/sources.list.d/myelin-backports.list
if ! have wireguard-go; then
  site=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' | head -1)
  [ -e "$backports" ] || echo "deb $site bookworm-backports main" >"$backports"
  missing="$missing wireguard-go/bookworm-backports"
fi
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
exec "$here/install.sh" $missing
