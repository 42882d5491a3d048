#!/bin/bash
# clean-host.sh: leave the host as it was before Berth: stop the engine, remove
# what it has here (containers, images, volumes, networks, cgroups, the keeper),
# and what the demo has cached and installed. KEEP_PACKAGES=1 leaves the Debian
# packages.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${BERTH_DEMO_CACHE:-/var/cache/berth-demo}

if [ "$(id -u)" -ne 0 ]; then
	echo 'clean-host must run as root' >&2
	exit 1
fi

stop_engine() {
	local pid
	if [ -d /run/systemd/system ]; then
		systemctl --quiet stop berthd.socket berthd.service 2>/dev/null || true
	fi
	pid=$(cat /run/berth/berthd.pid 2>/dev/null) || return 0
	case $(readlink "/proc/$pid/exe") in
	*/berthd | */'berthd (deleted)') ;;
	*) return 0 ;; # the file is a dead engine's
	esac
	kill "$pid"
	timeout 60 tail --pid="$pid" --sleep-interval=0.05 --follow /dev/null
	echo "stopped the engine (process $pid)"
}

# The packages that the demo has installed go, unless others need them by now.
remove_packages() {
	local installed extra
	[ -s "$cache/packages" ] && [ -z "${KEEP_PACKAGES:-}" ] || return 0
	# shellcheck disable=SC2016 # dpkg-query expands them
	mapfile -t installed < <(sort -u "$cache/packages" |
		xargs dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
	[ ${#installed[@]} -gt 0 ] || return 0
	extra=$(apt-get --simulate purge "${installed[@]}" | sed -n 's/^Purg \([^ ]*\).*/\1/p' |
		grep -vxF -f <(printf '%s\n' "${installed[@]}") || true)
	if [ -n "$extra" ]; then
		echo "packages that the demo installed stay, as others need them: ${extra//$'\n'/ }"
		return
	fi
	DEBIAN_FRONTEND=noninteractive apt-get purge -y -q -o DPkg::Lock::Timeout=300 "${installed[@]}" >/dev/null
	echo "removed packages that the demo had installed: ${installed[*]}"
}

stop_engine
if [ -e /var/lib/berth ] || [ -e /run/berth ]; then
	[ -x bin/berthd ] || make --no-print-directory build
	bin/berthd --purge
	echo 'removed containers, images, networks and everything else in /var/lib/berth and /run/berth'
fi
remove_packages
rm -rf "$cache"
rm -f bin/demo.log
