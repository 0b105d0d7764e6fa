#!/usr/bin/env bash
# Set up WAL archiving in the Docker Compose deployment: restart PostgreSQL with archiving, verify, test, trigger.
#
#     ./scripts/setup_wal_archiving.sh
#
# It may be run again at any time.
set -euo pipefail

cd "$(dirname "$0")/.."
env_file=.env

say() { printf '\n==> %s\n' "$*"; }
fail() {
    printf 'ERROR: %s\n' "$*" >&2
    exit 1
}

if docker compose version >/dev/null 2>&1; then
    tool=(docker compose)
elif command -v docker-compose >/dev/null; then
    tool=(docker-compose)
else
    fail "neither 'docker compose' nor 'docker-compose' is installed"
fi
compose() { "${tool[@]}" --env-file "$env_file" --file deploy/docker-compose.yml "$@"; }
pipeline() { compose exec -T code wal-pipeline "$@"; }

[[ -f $env_file ]] || fail "'$env_file' does not exist; HINT: cp .env.example .env, and fill in the stores' credentials."
for name in POSTGRES_PASSWORD RECORDS_PASSWORD; do
    grep -Eq "^$name=.+" "$env_file" || fail "'$env_file' does not set $name"
done
compose config --quiet || fail "'deploy/docker-compose.yml' and '$env_file' do not fit together"

say "Restart PostgreSQL with WAL archiving"
compose build
compose up --detach spool-owner db records
compose restart db

say "Restart the code location, Dagster's daemon and the web server"
compose up --detach --force-recreate code daemon web
for _ in $(seq 60); do
    if pipeline --version >/dev/null 2>&1 && compose exec -T db pg_isready --quiet --username=postgres; then
        ready=yes
        break
    fi
    sleep 2
done
[[ ${ready:-no} == yes ]] || fail "the services did not come up; look at: ${tool[*]} --env-file $env_file -f deploy/docker-compose.yml logs"

say "Verify the configuration"
pipeline setup || fail "PostgreSQL is not set up for archiving: see the lines above"

say "Test the spool and the stores"
pipeline check || fail "archiving does not work yet: see the lines above"

say "Trigger: finish a segment and wait until every store has it"
pipeline setup --apply --wait 180 || fail "the segment did not arrive: see the lines above, and docs/operations.md"

say "Take the first base backup: without one, WAL alone restores nothing"
pipeline backup

pipeline status
say "Done. Dagster's UI is at http://127.0.0.1:3000"
