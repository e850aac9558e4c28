#!/bin/sh
# Installs Debian packages, quietly: what apt-get says is shown only where it fails.
#
#   setup/install.sh PACKAGE…
set -eu
if [ "$(id -u)" != 0 ]; then
  echo "setup: these Debian packages are missing: $*" >&2
  echo "setup: run the same with sudo once to install them" >&2
  exit 1
fi
echo "setup: installing $*"
export DEBIAN_FRONTEND=noninteractive
# Daemons such as redis and nginx are wanted as programs only: nothing may start with its package.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT INT TERM
fi
log=$(mktemp)
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "setup: apt-get failed; the whole log is $log" >&2
  exit 1
fi
rm -f "$log"
