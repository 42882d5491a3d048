#!/bin/sh
# install-postgres.sh: run inside a debian container (or a directory that will
# become an image) to install PostgreSQL, reachable by password from
# everywhere. /usr/local/bin/postgres-server starts it in the foreground.
set -eu

export DEBIAN_FRONTEND=noninteractive
if [ "${1:-}" != configure ]; then
	apt-get update -q
	apt-get install -y -q --no-install-recommends postgresql
	apt-get clean
	rm -rf /var/lib/apt/lists/*
fi

version=$(ls /etc/postgresql)
config=/etc/postgresql/$version/main
echo "listen_addresses = '*'" >>"$config/postgresql.conf"
echo 'host all all 0.0.0.0/0 scram-sha-256' >>"$config/pg_hba.conf"

# The Debian package runs the server as this user, from these directories.
cat >/usr/local/bin/postgres-server <<EOF
#!/bin/sh
exec /usr/lib/postgresql/$version/bin/postgres -D /var/lib/postgresql/$version/main -c config_file=$config/postgresql.conf
EOF
chmod 755 /usr/local/bin/postgres-server
