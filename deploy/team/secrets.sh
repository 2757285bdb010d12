#!/usr/bin/env bash
# Make the secrets of a server once: bash secrets.sh [folder]. What is there already is kept.
set -euo pipefail
folder=${1:-secrets}
umask 077
mkdir -p "$folder"
cd "$folder"
secret() { python3 -c 'import secrets; print(secrets.token_hex(24))'; }
[ -s postgres_password ] || secret > postgres_password
[ -s pgpass ] || printf '*:*:*:mlflow:%s\n' "$(cat postgres_password)" > pgpass
[ -s s3.env ] || printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\nAWS_DEFAULT_REGION=us-east-1\n' \
  "$(secret | cut -c 1-20)" "$(secret)" > s3.env
# The administrator's password is read at the first start only; change it later in the pages of the server.
[ -s mlflow.env ] || printf 'MLFLOW_FLASK_SERVER_SECRET_KEY=%s\nMLFLOW_AUTH_ADMIN_PASSWORD=%s\n' \
  "$(secret)" "$(secret)" > mlflow.env
chmod 600 postgres_password pgpass s3.env mlflow.env
if [ "$(id -u)" = 0 ]; then chown 10002 pgpass; fi # the user of the image
ls -l
