#!/bin/sh
# make-python.sh DIR: write three tar archives of one Debian root file system to
# DIR: base.tar, a minimal system; python.tar, with Python and a few packages;
# app.tar, with numerical packages as well. From the host's mirror and release
# (or Debian's stable release and its own mirror).
set -eu

dir=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# shellcheck source=/dev/null
. /etc/os-release
suite=stable
[ "${ID:-}" != debian ] || suite=${VERSION_CODENAME:-stable}

# Where the host's apt gets this release from, updates included, and the settings
# it needs to get there.
# shellcheck disable=SC2016 # apt-get expands them
apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' 'Origin: Debian' 2>/dev/null |
	awk -v suite="$suite" 'index($3, suite) == 1 && $4 == "main"' | sort -u >"$work/sources.list"
apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|Retries)' >"$work/apt.conf" || true

# Hooks get the root as $1.
pack() {
	echo "tar -C \"\$1\" --numeric-owner --sort=name --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*'" \
		"--exclude='./var/cache/*' --exclude='./var/lib/apt/lists/*' --exclude=./usr/share/doc --exclude=./usr/share/locale -cf '$dir/$1.tar' ."
}
add() {
	echo "DEBIAN_FRONTEND=noninteractive chroot \"\$1\" apt-get install --yes --no-install-recommends $* >/dev/null"
}
set -- --quiet --variant=minbase --format=null --aptopt="$work/apt.conf" --dpkgopt=force-unsafe-io \
	--customize-hook="$(pack base)" \
	--customize-hook="$(add python3 python3-pip python3-lxml)" \
	--customize-hook="$(pack python)" \
	--customize-hook="$(add python3-numpy python3-pandas)" \
	--customize-hook="$(pack app)" \
	"$suite" /dev/null
[ ! -s "$work/sources.list" ] || set -- "$@" "$work/sources.list"
mmdebstrap "$@"
