#!/bin/sh
# What `make bench` measures against: installed for benchmarks only, from Debian.
set -eu
export DEBIAN_FRONTEND=noninteractive
have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }
missing=
for package in sockperf wireguard-tools charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins; do
  have "$package" || missing="$missing $package"
done
# The peer's current release, not the one that Debian 12 froze: it has the offloads that make it fast.
backports=/etc/apt/sources.list.d/myelin-backports.list
if ! have wireguard-go && [ ! -e "$backports" ]; then
  site=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' | head -1)
  echo "deb $site bookworm-backports main" >"$backports"
fi
have wireguard-go || missing="$missing wireguard-go/bookworm-backports"
[ -n "$missing" ] || exit 0
echo "setup: installing for the benchmarks:$missing"
# No daemon of these may start with its package.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT INT TERM
fi
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  exit 1
fi
rm -f "$log"
