#!/bin/bash
# demo.sh: Berth's main job, on this host, step by step: a real server from
# Debian's packages in a confined and limited container, used by a client on
# the host while its neighbour runs out of memory and the engine is killed.
# What the commands print goes to bin/demo.log; this shows what came of it.
# shellcheck disable=SC2317 # step calls the functions by their names
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${BERTH_DEMO_CACHE:-/var/cache/berth-demo}
log=$PWD/bin/demo.log
berth=$PWD/bin/berth

# --- how it is told ---

now() { date +%s%N; }
elapsed() { awk -v ns=$(($(now) - $1)) 'BEGIN { printf "%.2f s", ns / 1e9 }'; }

number=0
# step TITLE COMMAND [ARG...]: run a function or command, quietly, and print how long it
# took and then what it has told.
step() {
	local title=$1 begin
	shift
	number=$((number + 1))
	printf '%2d. %-62s ' "$number" "$title"
	printf '\n== %s. %s\n' "$number" "$title" >>"$log"
	begin=$(now)
	: >"$work/told"
	"$@" >>"$log" 2>&1
	printf '%10s\n' "$(elapsed "$begin")"
	sed 's/^/      /' "$work/told"
}

# tell TEXT: what the current step prints below its time.
tell() { printf '%s\n' "$*" | tee -a "$work/told"; }
tell_output() { tee -a "$work/told"; }

# expect WHAT GOT WANTED: the demo fails unless they are equal.
expect() {
	[ "$2" = "$3" ] && return
	echo "$1: got '$2', expected '$3'"
	return 1
}

# explain_failure: the subshell that ran the steps is gone; its log is not.
explain_failure() {
	printf '\n\nThe demo failed. The end of %s:\n\n' "$log"
	tail -n 25 "$log" | sed 's/^/    /'
	[ ! -f /run/berth/berthd.log ] || { printf '\nand of /run/berth/berthd.log:\n\n'; tail -n 5 /run/berth/berthd.log | sed 's/^/    /'; }
}

# --- the steps ---

install_packages() {
	local names=(ca-certificates busybox-static mmdebstrap)
	command -v psql || names+=(postgresql-client)
	demo/install-packages.sh "${names[@]}"
}

build() { make --no-print-directory build; }

# Any command starts the engine when none runs; the keeper comes with it. An
# engine of another build gives way: its containers do not notice.
start_engine() {
	local engine
	engine=$(cat /run/berth/berthd.pid 2>/dev/null || true)
	if [ -n "$engine" ] && [ "$(readlink "/proc/$engine/exe")" != "$PWD/bin/berthd" ]; then
		kill "$engine"
		tail --pid="$engine" --sleep-interval=0.01 --follow /dev/null
	fi
	"$berth" info
	"$berth" rm --force demo-db demo-hog demo-counter demo-build 2>/dev/null || true # of a run that failed
	tell "$("$berth" version --format 'engine {{.Server.Version}}, API {{.Server.APIVersion}}'), process $(cat /run/berth/berthd.pid)"
}

make_busybox() {
	have_image busybox || demo/make-busybox.sh | "$berth" import --change 'CMD ["sh"]' - busybox
}

make_debian() {
	demo/make-debian.sh "$cache/debian.tar"
	have_image debian || "$berth" import --change 'CMD ["bash"]' "$cache/debian.tar" debian
}

have_image() { "$berth" image inspect "$1" >/dev/null 2>&1; }

# The server is installed where it will run: in a container, whose changes
# become an image. Where a container cannot reach the mirror, by any network, the
# host's mmdebstrap installs it.
make_postgres() {
	if have_image postgres; then
		tell 'the image of an earlier run is there'
		return
	fi
	local network
	for network in bridge host; do
		"$berth" rm --force demo-build 2>/dev/null || true
		mirror_reachable "$network" || continue
		"$berth" run --interactive --name demo-build --network "$network" debian sh -s <demo/install-postgres.sh
		commit_postgres
		tell "apt-get in a debian container ($network network), then berth commit"
		return
	done
	make_postgres_on_host
	tell 'mmdebstrap: containers do not reach the Debian mirror'
}

mirror_reachable() { timeout 30 "$berth" run --rm --network "$1" debian apt-get -q -o Acquire::Retries=0 -o APT::Update::Error-Mode=any update; }

postgres_changes=(--change 'USER postgres' --change 'EXPOSE 5432' --change 'STOPSIGNAL SIGINT'
	--change 'CMD ["/usr/local/bin/postgres-server"]')

commit_postgres() {
	"$berth" commit "${postgres_changes[@]}" demo-build postgres
	"$berth" rm demo-build
}

make_postgres_on_host() {
	# shellcheck disable=SC2016 # $1 is for mmdebstrap's shell
	# The package's directory for its socket is in /run, which mmdebstrap would empty.
	demo/make-debian.sh "$work/postgres.tar" --include=postgresql --skip=cleanup/run \
		--customize-hook='copy-in demo/install-postgres.sh /tmp' \
		--customize-hook='chroot "$1" sh /tmp/install-postgres.sh configure && rm "$1/tmp/install-postgres.sh"'
	"$berth" import "${postgres_changes[@]}" "$work/postgres.tar" postgres
	rm "$work/postgres.tar"
}

start_server() {
	"$berth" run --detach --name demo-db --memory 512m --cpus 1.5 --pids-limit 64 --shm-size 128m \
		--publish 127.0.0.1::5432 postgres
	address=$("$berth" port demo-db 5432/tcp)
	# The server says when it is ready; until then the step waits for its log.
	timeout 60 sed '/ready to accept connections/q' < <("$berth" logs --follow demo-db 2>&1)
	password=$(head -c 18 /dev/urandom | base64)
	"$berth" exec demo-db psql --no-psqlrc -q -c "ALTER ROLE postgres PASSWORD '$password'"
	tell "user $("$berth" exec demo-db id -un), $(limits), published at $address"
}

limits() {
	"$berth" inspect demo-db --format '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}' |
		awk '{ printf "%d MiB of memory, %.1f processors, %d processes", $1 / 1048576, $2 / 1e9, $3 }'
}

# sql TEXT: a client on the host, through the published port.
sql() {
	PGPASSWORD=$password PGCONNECT_TIMEOUT=5 psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 \
		-h "${address%:*}" -p "${address##*:}" -U postgres -c "$1" postgres
}

use_server() {
	sql 'CREATE TABLE ships (name text PRIMARY KEY, length_m numeric)'
	sql "INSERT INTO ships VALUES ('Preussen', 147), ('Cutty Sark', 85), ('Passat', 115)"
	tell "longest ship: $(sql 'SELECT name FROM ships ORDER BY length_m DESC LIMIT 1')"
	sql 'CREATE TABLE load AS SELECT i, md5(i::text) AS m FROM generate_series(1, 300000) i'
	sql 'CREATE INDEX ON load (m)'
	expect 'rows after the load' "$(sql 'SELECT count(*) FROM load')" 300000
	tell '300000 rows written, indexed and counted'
}

run_hog() {
	local since status=0 event
	since=$(date +%s)
	"$berth" run --name demo-hog --memory 64m --memory-swap 64m busybox tail /dev/zero || status=$?
	event=$("$berth" events --since "$since" --until "$(date +%s.%N)" --filter container=demo-hog --filter event=oom --format '{{.Action}}')
	expect 'exit code' "$status" 137
	expect 'OOMKilled' "$("$berth" inspect --format '{{.State.OOMKilled}}' demo-hog)" true
	expect 'event' "$(sort -u <<<"$event")" oom
	expect 'ships in the server beside it' "$(sql 'SELECT count(*) FROM ships')" 3
	tell 'exit code 137, OOMKilled true, event oom; the server beside it answers'
}

# A client sends requests all the time, and a second container writes a numbered
# line about every millisecond; while no engine is there it is told to end, which
# it does with a code of its own.
kill_engine() {
	local engine counter lines while_dead
	# shellcheck disable=SC2016 # $i is for the container's shell
	"$berth" run --detach --name demo-counter busybox \
		sh -c 'i=0; trap "echo end; exit 42" TERM; while i=$((i+1)); do echo line $i; usleep 500; done'
	counter=$("$berth" inspect --format '{{.State.Pid}}' demo-counter)
	answered=0 failed=0
	touch "$work/client"
	coproc CLIENT { request_in_a_loop; }
	exec {answers}<&"${CLIENT[0]}" # bash forgets CLIENT when the client ends
	await_requests 30

	engine=$(cat /run/berth/berthd.pid)
	kill -KILL "$engine"
	tail --pid="$engine" --sleep-interval=0.01 --follow /dev/null
	while_dead=$((answered + failed))
	await_requests 30
	kill -TERM "$counter"
	tail --pid="$counter" --sleep-interval=0.01 --follow /dev/null
	await_requests 30
	while_dead=$((answered + failed - while_dead))

	# This command finds no engine and starts one.
	"$berth" ps --all --filter name=demo- --format '{{.Names}}: {{.Status}}' | tell_output
	await_requests 30
	rm "$work/client"
	await_requests all
	exec {answers}<&-

	tell "client: $answered requests answered, $failed failed; $while_dead of them while there was no engine"
	expect 'failed requests' "$failed" 0
	expect 'exit code of the counter' "$("$berth" wait demo-counter)" 42
	"$berth" logs demo-counter >"$work/counter"
	lines=$(($(wc -l <"$work/counter") - 1))
	{ seq -f 'line %.0f' "$lines" && echo end; } | cmp - "$work/counter"
	tell "counter: ended meanwhile with exit code 42; its $lines lines are in the log, once each and in order"
}

# request_in_a_loop prints a line per request, as long as $work/client is there.
request_in_a_loop() {
	local text="INSERT INTO ships VALUES ('ship ' || clock_timestamp(), 1) RETURNING 'stored'"
	while [ -e "$work/client" ]; do
		if [ "$(sql "$text" 2>>"$log")" = stored ]; then echo ok; else echo failed; fi
	done
}

# await_requests N|all: wait for so many requests and count how they went.
await_requests() {
	local n=0 line
	until [ "$n" = "$1" ]; do
		read -r -u "$answers" line || break
		n=$((n + 1))
		if [ "$line" = ok ]; then answered=$((answered + 1)); else failed=$((failed + 1)); fi
	done
	[ "$1" = all ] || expect 'requests' "$n" "$1"
}

show() {
	local format='{{.Name}}: {{.State.Status}}, pid {{.State.Pid}}, exit code {{.State.ExitCode}}, OOM killed: {{.State.OOMKilled}}'
	"$berth" ps --all | tell_output
	tell
	"$berth" stats --no-stream | tell_output
	tell
	"$berth" inspect --format "$format" demo-db demo-hog demo-counter | tell_output
}

stop_all() {
	"$berth" stop demo-db
	expect 'exit code of the server' "$("$berth" inspect --format '{{.State.ExitCode}}' demo-db)" 0
	"$berth" rm demo-db demo-hog demo-counter
	tell 'the server ended in order (exit code 0); the images stay:'
	"$berth" images | tell_output
}

run_steps() {
	local begin
	begin=$(now)
	step "install what is missing of Debian's packages" install_packages
	step 'build berth, berthd and berth-oci' build
	step 'start the engine: the first command does' start_engine
	step 'make image busybox from the package busybox-static' make_busybox
	step 'make image debian with mmdebstrap, and import it' make_debian
	step 'make image postgres from the Debian package' make_postgres
	step 'start the server, as user postgres, limited, port published' start_server
	step 'use it from the host with psql' use_server
	step 'let a neighbour run out of its 64 MiB' run_hog
	step 'kill the engine with SIGKILL while requests come in' kill_engine
	step 'show what there is now' show
	step 'stop and remove the containers' stop_all
	printf '\nDone in %s. The engine runs on: try "bin/berth run --rm -it debian".\n' "$(elapsed "$begin")"
	echo '"make clean-host" removes all of it.'
}

if [ "$(id -u)" -ne 0 ]; then
	echo 'The demo runs as root: it makes namespaces, cgroups and a network bridge.' >&2
	exit 1
fi
mkdir -p bin "$cache"
: >"$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Not "run_steps || ...", which would let every step go on after an error.
set +e
(
	set -e
	run_steps
)
status=$?
[ $status -eq 0 ] || explain_failure
exit $status
