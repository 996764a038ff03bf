#!/bin/sh
# As the official image's: the superuser is postgres with POSTGRES_PASSWORD, the data is made at the first start.
set -eu
data=/var/lib/postgresql/18/docker
if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data"
    chown -R postgres:postgres /var/lib/postgresql
    printf '%s\n' "${POSTGRES_PASSWORD:?say which password the superuser has}" > /tmp/password
    chown postgres /tmp/password
    setpriv --reuid=postgres --regid=postgres --clear-groups \
        initdb --pgdata="$data" --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
