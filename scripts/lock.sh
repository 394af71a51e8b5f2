#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock with uv: the one on PATH, or one in a throw-away environment.
# uv.lock stays out of git, since it names the host of the package index; requirements.lock has hashes and no host.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"
. "$here/python.sh"

find_python
work=$(mktemp -d) || die "No temporary folder could be made."
trap 'rm -rf "$work"' EXIT
uv=$(command -v uv) || {
    uv=$work/uv/bin/uv
    long_step "Installing uv for this once" uv sh -c '"$1" -m venv "$2" && "$2/bin/python" -m pip install -q uv' sh "$python" "$work/uv" ||
        die "uv could not be installed." "Install it yourself (pipx install uv), then run this again."
}
long_step "Resolving pyproject.toml" lock "$uv" lock --python "$python" || die "The requirements of pyproject.toml do not fit together."
"$uv" export --python "$python" --quiet --frozen --no-emit-project --no-annotate --no-header >"$work/requirements.lock" ||
    die "requirements.lock could not be written."
if cmp -s "$work/requirements.lock" requirements.lock; then
    say "requirements.lock was up to date."
else
    cp "$work/requirements.lock" requirements.lock.new && mv requirements.lock.new requirements.lock
    say "requirements.lock is new: look at it with git diff, then run the tests."
fi
