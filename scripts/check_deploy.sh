#!/usr/bin/env bash
# Django's deployment checks on the production settings, with secrets that live as long as this script.
# Nothing is connected to. Of the environment only these variables are there, so a developer's own cannot hide a fault.
set -euo pipefail
cd "$(dirname "$0")/.."
var=$(mktemp -d)
trap 'rm -rf "$var"' EXIT
word() { .venv/bin/python -c 'import secrets; print(secrets.token_hex(40))'; }
env -i PATH="$PATH" HOME="$var" LANG=C.UTF-8 BUTTCLOUD_VAR="$var" \
    MODE=production \
    SECRET_KEY="$(word)" \
    SITE_URL=https://pubs.example \
    MAIL_FROM="buttcloud <hello@pubs.example>" \
    PUB_HOST=pubs.example \
    PUB_IMAGE="sha256:$(word)" \
    DB_PASSWORD="$(word)" \
    REDIS_URL=redis://redis.example:6379 \
    STRIPE_SECRET_KEY="sk_live_$(word)" \
    .venv/bin/python manage.py check --deploy --fail-level WARNING
