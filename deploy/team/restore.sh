#!/usr/bin/env bash
# Restore a backup into empty databases and a bucket: bash restore.sh <folder>/<time>, as backup.sh printed it. Stop the
# server first. Needs what backup.sh needs; refuses a database that holds tables.
set -euo pipefail
backup=$1
export RCLONE_CONFIG=/dev/null RCLONE_S3_PROVIDER=SeaweedFS RCLONE_S3_ENDPOINT=$MLFLOW_S3_ENDPOINT_URL RCLONE_S3_ENV_AUTH=true
unset AWS_CA_BUNDLE # which rclone does not take
for database in mlflow mlflow_auth; do
  tables=$(psql --no-align --tuples-only --command "select count(*) from pg_tables where schemaname = 'public'" "$database")
  [ "$tables" = 0 ] || { echo "The database $database holds $tables tables: restore into an empty one." >&2; exit 1; }
done
rclone copy --quiet "$(dirname "$backup")/artifacts" :s3:mlflow
for database in mlflow mlflow_auth; do
  pg_restore --exit-on-error --no-owner --dbname="$database" "$backup-$database.dump"
done
echo "Restored $backup."
