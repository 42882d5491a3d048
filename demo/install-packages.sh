#!/bin/sh
# install-packages.sh NAME...: install the Debian packages that are missing,
# without the ones they merely recommend, and note what was new for
# clean-host.sh.
set -eu

record=${BERTH_DEMO_CACHE:-/var/cache/berth-demo}/packages
missing=
for name; do
	dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

install() {
	# $missing is a list of words.
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get "$@" -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 install $missing
}

# The package lists of a fresh machine are missing or out of date.
install --simulate >/dev/null 2>&1 || apt-get update -q
mkdir -p "${record%/*}"
install --simulate | sed -n 's/^Inst \([^ ]*\) (.*/\1/p' >>"$record"
install || { apt-get update -q && install; }
