#!/bin/sh
# make-debian.sh FILE: write a minimal Debian root file system to FILE, a tar
# archive, from the host's mirror and release (or Debian's stable release and
# its own mirror). It is made once: a FILE that is there stays.
set -eu

file=$1
shift
[ ! -s "$file" ] || exit 0
mkdir -p "$(dirname "$file")"
work=$(mktemp -d)
trap 'rm -rf "$work"; rm -f "$file.partial"' EXIT

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

# The archive is thrown away if the machine dies: nothing waits for the disk.
set -- --quiet --variant=minbase --format=tar \
	--aptopt="$work/apt.conf" --dpkgopt=force-unsafe-io \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	"$@" "$suite" "$file.partial"
[ ! -s "$work/sources.list" ] || set -- "$@" "$work/sources.list"
mmdebstrap "$@"
mv "$file.partial" "$file"
