#!/bin/sh
# Installs what setup/packages.txt lists and is not there yet. Silent and quick when nothing is missing.
set -eu
here=$(dirname "$0")

have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing=
for package in $(sed 's/#.*//' "$here/packages.txt"); do
  have "$package" || missing="$missing $package"
done
# These come under other names too (Google's kubectl, a vendor's Node): the command is what counts.
command -v kubectl >/dev/null || missing="$missing kubernetes-client"
command -v npm >/dev/null || missing="$missing npm"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "setup: these Debian packages are missing:$missing" >&2
  echo "setup: run 'sudo make setup' once to install them" >&2
  exit 1
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# Daemons such as redis and nginx are wanted as programs only: nothing may start with the package.
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
  echo "setup: apt-get failed; the whole log is $log" >&2
  exit 1
fi
rm -f "$log"
