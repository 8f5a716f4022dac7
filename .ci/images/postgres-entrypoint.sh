#!/usr/bin/env bash
# The official postgres image's contract, for an image made of Debian's packages: the same variables, the same
# /docker-entrypoint-initdb.d, a first start without TCP for the initial scripts, the same log lines.
set -Eeuo pipefail

fail() { printf 'Error: %s\n' "$*" >&2; exit 1; }

# VAR, or the content of the file that VAR_FILE names; both is an error.
from_file() {
	local name=$1 default=${2:-} file_name="${1}_FILE"
	if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
		fail "both $name and $file_name are set (but are exclusive)"
	fi
	local value=$default
	if [ -n "${!name:-}" ]; then value=${!name}; elif [ -n "${!file_name:-}" ]; then value=$(<"${!file_name}"); fi
	export "$name"="$value"
	unset "$file_name"
}

prepare_folders() {
	mkdir -p "$PGDATA" /var/run/postgresql
	chmod 0700 "$PGDATA"
	chmod 2777 /var/run/postgresql
	if [ "$(id -u)" = 0 ]; then
		find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
		chown postgres:postgres /var/run/postgresql
	fi
}

check_password() {
	if [ -n "$POSTGRES_PASSWORD" ] || [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then return; fi
	cat >&2 <<-'MESSAGE'
		Error: Database is uninitialized and superuser password is not specified.
		       You must specify POSTGRES_PASSWORD to a non-empty value for the
		       superuser. For example, "-e POSTGRES_PASSWORD=password" on "docker run".

		       You may also use "POSTGRES_HOST_AUTH_METHOD=trust" to allow all
		       connections without a password. This is *not* recommended.
	MESSAGE
	exit 1
}

initialise() {
	local password_file
	password_file=$(mktemp)
	printf '%s\n' "$POSTGRES_PASSWORD" >"$password_file"
	local password=(--pwfile="$password_file")
	[ -n "$POSTGRES_PASSWORD" ] || password=()
	# shellcheck disable=SC2086 # the variable holds several arguments, as in the official image
	initdb --username="$POSTGRES_USER" "${password[@]}" ${POSTGRES_INITDB_ARGS:-}
	rm -f "$password_file"
	printf "\nlisten_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
	printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

sql() { psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER" "$@"; }

process_init_files() {
	local file
	for file in /docker-entrypoint-initdb.d/*; do
		case "$file" in
			*.sh)
				if [ -x "$file" ]; then
					printf '%s: running %s\n' "$0" "$file"
					"$file"
				else
					printf '%s: sourcing %s\n' "$0" "$file"
					# shellcheck disable=SC1090 # the user's script
					. "$file"
				fi
				;;
			*.sql) printf '%s: running %s\n' "$0" "$file"; sql --dbname "$POSTGRES_DB" -f "$file" ;;
			*.sql.gz) printf '%s: running %s\n' "$0" "$file"; gunzip -c "$file" | sql --dbname "$POSTGRES_DB" ;;
			/docker-entrypoint-initdb.d/\*) ;;
			*) printf '%s: ignoring %s\n' "$0" "$file" ;;
		esac
	done
}

first_start() {
	check_password
	initialise
	export PGPASSWORD=$POSTGRES_PASSWORD
	PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
	if [ "$POSTGRES_DB" != postgres ]; then
		sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
	fi
	process_init_files
	pg_ctl -D "$PGDATA" -m fast -w stop
	unset PGPASSWORD
	printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
	prepare_folders
	if [ "$(id -u)" = 0 ]; then
		exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
	fi
	if [ -s "$PGDATA/PG_VERSION" ]; then
		printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
	else
		from_file POSTGRES_PASSWORD
		from_file POSTGRES_USER postgres
		from_file POSTGRES_DB "$POSTGRES_USER"
		from_file POSTGRES_INITDB_ARGS
		: "${POSTGRES_HOST_AUTH_METHOD:=}"
		first_start
	fi
fi
exec "$@"
