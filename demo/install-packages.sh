#!/bin/sh
# install-packages.sh NAME...: install the Debian packages that are missing,
# without the ones they merely recommend, and note what was new for
# clean-host.sh. Services that come with them are not started: the host is to
# keep its network as it is.
set -eu

record=${BERTH_DEMO_CACHE:-/var/cache/berth-demo}/packages
missing=
for name; do
	dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

# The script that packages ask before they start a service (policy-rc.d(8)),
# unless the administrator has one.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi

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
