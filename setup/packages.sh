#!/bin/sh
# Installs what setup/packages.txt lists and is not there yet. Silent and quick when nothing is missing.
set -eu
here=$(dirname "$0")

have() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing=
for package in $(sed 's/#.*//' "$here/packages.txt"); do
  # The engine does without this one where Debian has none for the processor.
  [ "$package" = libipsec-mb-dev ] && [ "$(dpkg --print-architecture)" != amd64 ] && continue
  have "$package" || missing="$missing $package"
done
# These come under other names too (Google's kubectl, a vendor's Node): the command is what counts.
command -v kubectl >/dev/null || missing="$missing kubernetes-client"
command -v npm >/dev/null || missing="$missing npm"
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
exec "$here/install.sh" $missing
