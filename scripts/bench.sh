#!/usr/bin/env bash
# Runs every bench/*.py with --check, goes on after a miss, and exits 1 if there was one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
summary="" missed=0
for script in bench/*.py; do
    case "$script" in */support.py) continue ;; "bench/*.py") echo "error: there is nothing in bench/." >&2; exit 1 ;; esac
    printf '\n== %s\n' "$script"
    began=$SECONDS verdict="target met"
    .venv/bin/python "$script" --check || { verdict="TARGET MISSED"; missed=1; }
    summary+=$(printf '  %-32s %-14s %4d s' "$script" "$verdict" $((SECONDS - began)))$'\n'
done
printf '\n== Summary\n%s' "$summary"
exit $missed
