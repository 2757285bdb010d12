#!/usr/bin/env bash
# Move the runs and models of a local mlflow.db into a team's server: bash migrate.sh <folder>/mlflow.db. Ids, tags and links
# stay. Artifacts are looked for where they were, else in `mlruns` (or a server's `mlartifacts`) beside the file. The
# server's database must be new: what it holds is replaced. Stop the server first, and every command that uses the file.
# Needs pgloader, psql, sqlite3 and rclone, rights of a superuser of PostgreSQL (PGHOST, PGUSER ...; by default the user
# `postgres` at the local socket), and MLFLOW_S3_ENDPOINT_URL with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
set -euo pipefail
file=$(realpath "$1")
database=${2:-mlflow}
export RCLONE_CONFIG=/dev/null RCLONE_S3_PROVIDER=SeaweedFS RCLONE_S3_ENDPOINT=$MLFLOW_S3_ENDPOINT_URL RCLONE_S3_ENV_AUTH=true
unset AWS_CA_BUNDLE # which rclone does not take
ask() { psql --no-align --tuples-only --set ON_ERROR_STOP=1 --field-separator $'\t' --dbname "$database" "$@"; }

theirs=$(sqlite3 "$file" 'select version_num from alembic_version')
ours=$(ask --command 'select version_num from alembic_version')
if [ "$theirs" != "$ours" ]; then
  echo "The schemas differ ($theirs, $ours): run \`mlflow db upgrade sqlite:///$file\` with the server's MLflow." >&2
  exit 1
fi
runs=$(ask --command 'select count(*) from runs')
[ "$runs" = 0 ] || { echo "The server's database holds $runs runs, which would be lost." >&2; exit 1; }

beside=$(dirname "$file")
folder_of() { # of an experiment's artifacts, given their location
  local path=${1#file://}
  if [ "$path" != "$1" ]; then
    path=$(python3 -c 'import sys; from urllib.parse import unquote; print(unquote(sys.argv[1]))' "$path")
  fi
  for folder in "$path" "$beside/mlruns/${path##*/}" "$beside/mlartifacts/${path##*/}"; do
    if [ -d "$folder" ]; then echo "$folder"; return; fi
  done
}
# Artifacts first: the database is changed once they are there, so that a failed copy can be repeated.
locations='select experiment_id, artifact_location from experiments where experiment_id in (select experiment_id from runs)'
experiments=$(sqlite3 -separator $'\t' "$file" "$locations")
copied=0
while IFS=$'\t' read -r id location; do
  [ -n "$id" ] || continue
  folder=$(folder_of "$location")
  [ -n "$folder" ] || continue
  rclone copy --quiet "$folder" ":s3:mlflow/$id"
  copied=$((copied + 1))
done <<< "$experiments"
if [ "$copied" = 0 ] && [ -n "$experiments" ]; then
  echo "No artifacts were found in $beside/mlruns, nor in $(head -n 1 <<< "$experiments" | cut -f 2)." >&2
  exit 1
fi

copy=$(mktemp -d) # pgloader may write beside the file that it reads
trap 'rm -rf "$copy"' EXIT
sqlite3 "$file" ".backup '$copy/mlflow.db'"
cat > "$copy/load" <<END
load database from sqlite://$copy/mlflow.db into postgresql:///$database
with data only, truncate, disable triggers, reset sequences
excluding table names like 'alembic_version';
END
pgloader --on-error-stop "$copy/load"

ask <<'END'
begin;
update runs set artifact_uri = replace(artifact_uri, artifact_location, 'mlflow-artifacts:/' || experiments.experiment_id)
  from experiments where runs.experiment_id = experiments.experiment_id;
update logged_models set artifact_location = replace(logged_models.artifact_location, experiments.artifact_location,
    'mlflow-artifacts:/' || experiments.experiment_id)
  from experiments where logged_models.experiment_id = experiments.experiment_id;
update model_versions set storage_location = replace(storage_location, artifact_location,
    'mlflow-artifacts:/' || experiment_id)
  from experiments where starts_with(storage_location, artifact_location || '/');
update model_versions set source = replace(source, artifact_location, 'mlflow-artifacts:/' || experiment_id)
  from experiments where starts_with(source, artifact_location || '/');
update experiments set artifact_location = 'mlflow-artifacts:/' || experiment_id;
commit;
END
ask --command "select count(*) || ' runs and ' || (select count(*) from model_versions) || ' model versions moved' from runs"
