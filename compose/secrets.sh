#!/usr/bin/env bash
# Makes compose/secrets/, once: what compose.yaml hands to its services as files. Nothing that is there is changed.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets && cd secrets

once() { [[ -e $1 ]] || cat > "$1"; }
random() { openssl rand -hex 32; }

random | once postgres_password
random | once valkey_password
random | once key_pepper
random | once fleet_secret
random | once store_access_key
random | once store_secret_key
printf 'postgresql://carillon:%s@postgres/carillon' "$(< postgres_password)" | once database_url
printf 'redis://carillon:%s@valkey:6379/0' "$(< valkey_password)" | once redis_url
# Who may do what in Valkey: no administration, and nobody without a password.
printf 'user default off\nuser carillon on >%s ~* &* +@all -@admin -@dangerous +info\n' "$(< valkey_password)" | once valkey_acl
printf '"%s,%s"' "$(< store_access_key)" "$(< store_secret_key)" | once rclone_key

# A certificate of one's own, until a real one (certificate, then key) takes its place.
if [[ ! -e proxy.pem ]]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=${1:-localhost}" \
        -addext "subjectAltName=DNS:${1:-localhost}" -keyout proxy.key -out proxy.crt 2>/dev/null
    cat proxy.crt proxy.key > proxy.pem
    rm proxy.key
fi
# Containers read them under users of their own; the directory keeps all others out.
chmod 644 ./*
echo "compose/secrets/ is complete"
