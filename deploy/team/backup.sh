#!/usr/bin/env bash
# Back a team's server up while it runs: bash backup.sh <folder>. Needs pg_dump and rclone, AWS_ACCESS_KEY_ID,
# AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL, and PGHOST, PGPORT, PGUSER, PGPASSFILE where the defaults do not reach
# the database. Keeps the databases of the last 14 backups; artifacts are copied once, and those that have been overwritten
# or changed since the last backup are kept in replaced/<time>.
set -euo pipefail
umask 077
folder=$(mkdir -p "$1" && cd "$1" && pwd)
name=$(date -u +%Y%m%dT%H%M%SZ)
export RCLONE_CONFIG=/dev/null RCLONE_S3_PROVIDER=SeaweedFS RCLONE_S3_ENDPOINT=$MLFLOW_S3_ENDPOINT_URL RCLONE_S3_ENV_AUTH=true
unset AWS_CA_BUNDLE # which rclone does not take
trap 'rm -f "$folder/$name"-*.part' EXIT
# Databases first: an artifact is written before the row that names it is read, so that the copy misses none of the dump.
for database in mlflow mlflow_auth; do
  pg_dump --format=custom --file="$folder/$name-$database.part" "$database"
done
mkdir -p "$folder/artifacts"
rclone copy --quiet --backup-dir "$folder/replaced/$name" :s3:mlflow "$folder/artifacts"
for database in mlflow mlflow_auth; do
  mv "$folder/$name-$database.part" "$folder/$name-$database.dump"
  find "$folder" -maxdepth 1 -name "*-$database.dump" | sort | head -n -14 | xargs -r rm --
done
echo "$folder/$name"
