#!/usr/bin/env bash
# All tests in two processes side by side: those that need the engine, which wait for it most of the time, and the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

results=var/tests
mkdir -p "$results" && rm -f "$results"/*.xml "$results"/live.log
# What is written to a file at once, not in blocks.
export PYTHONUNBUFFERED=1
tests() { .venv/bin/python -m pytest -rs --junitxml="$results/$1.xml" "${@:2}"; }

tests live tests/live >"$results/live.log" 2>&1 &
live=$!
trap 'kill "$live" 2>/dev/null' EXIT
say "All tests but those with a real engine. Those run beside them, and what they say follows ($results/live.log):"
status=0
tests rest --ignore=tests/live || status=$?
say "Those with a real engine:"
tail --pid="$live" --lines=+1 --follow "$results/live.log"
wait "$live" || status=$?
exit "$status"
