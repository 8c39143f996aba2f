#!/usr/bin/env bash
# Rewrites the lock files from pyproject.toml: universal, hashed, nothing younger than a week.
# Needs uv (https://docs.astral.sh/uv/) on the PATH or in $UV.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
cooldown=$(date -u -d '7 days ago' +%Y-%m-%dT00:00:00Z 2>/dev/null || date -u -v-7d +%Y-%m-%dT00:00:00Z)
common=(--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --exclude-newer "$cooldown" --quiet)
build=$(mktemp) && trap 'rm -f "$build"' EXIT
printf 'hatchling>=1.27\neditables>=0.5\n' >"$build"
"$uv" pip compile pyproject.toml "$build" --extra redis "${common[@]}" -o requirements.lock
"$uv" pip compile pyproject.toml "$build" --extra redis --group dev "${common[@]}" -o requirements-dev.lock
"$uv" pip compile --group pyproject.toml:train "${common[@]}" -o requirements-train.lock
