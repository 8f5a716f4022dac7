#!/usr/bin/env bash
# The official redis image's contract, for an image made of Debian's packages: flags and *.conf go to redis-server,
# which runs as the user redis, listens on every address of the container and saves into /data.
set -euo pipefail

if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- redis-server "$@"; fi
if [ "$1" = redis-server ]; then
	shift
	set -- redis-server "$@" --protected-mode no
	if [ "$(id -u)" = 0 ]; then
		find . \! -user redis -exec chown redis '{}' +
		exec setpriv --reuid=redis --regid=redis --clear-groups "$@"
	fi
fi
exec "$@"
