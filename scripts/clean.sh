#!/usr/bin/env bash
# Removes what the other commands made. Asks before what cannot be made again; YES=1 answers yes.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"
. "$here/engine.sh"
deployment=${DEPLOYMENT:-buttcloud}

ask() {
    [ "${YES:-}" != 1 ] || return 0
    [ -t 0 ] || { say "$1 No (there is no terminal to ask at; YES=1 answers yes)."; return 1; }
    local answer
    read -r -p "$1 [y/N] " answer && [ "$answer" = y ]
}

# A service that runs would lose its database under its feet.
refuse_while_running() {
    local pid
    for pid in $(pgrep -f 'manage\.py up' 2>/dev/null); do
        [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" != "$root" ] ||
            die "buttcloud runs here (process $pid)." "Stop it first: Ctrl-C in its terminal, or kill $pid"
    done
}

our_services() { docker service ls --quiet --filter "label=buttcloud.deployment=$deployment" 2>/dev/null; }
our_volumes() { docker volume ls --quiet --filter "name=$deployment-pub-" 2>/dev/null | grep "^$deployment-pub-"; }
count() { grep -c . || true; }

# Sets kept=1 when pubs stay.
remove_pubs() {
    local services volumes
    kept=0
    if ! have docker || ! look_at_engine; then say "No Docker engine answers, so services, volumes and images are left as they are."; kept=1; return; fi
    services=$(our_services)
    volumes=$(our_volumes)
    [ -n "$services$volumes" ] || return 0
    say "Deployment '$deployment' has $(printf %s "$services" | count) services and $(printf %s "$volumes" | count) volumes." \
        "The volumes hold the pubs' identities and messages, and nothing brings them back."
    if ! ask "Remove these services and volumes for ever?"; then kept=1; say "They are kept."; return; fi
    [ -z "$services" ] || docker service rm $services >/dev/null || die "Docker could not remove the services."
    local volume
    for volume in $volumes; do remove_volume "$volume"; done
    # The mark of this machine as a hub; none, if it never was one.
    docker node update --label-rm "buttcloud.hub.$deployment" "$(docker info --format '{{.Swarm.NodeID}}')" >/dev/null 2>&1 || true
}

# A pub has 30 s to close its database; until then its volume is in use.
remove_volume() {
    local tries=0
    until docker volume rm "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 90 ] || die "The volume $1 is still in use." "docker ps --filter volume=$1 shows by what; then run make clean again."
        sleep 0.5
    done
}

remove_var() {
    [ -d "$var" ] || return 0
    rm -rf "$var/setup-logs" "$var/setup.lock" "$var/pub_image" "$var/openstack"
    rmdir "$var" 2>/dev/null && return
    if ask "Remove $var for ever, with the database, secrets and mails?"; then rm -rf "$var"; else say "$var is kept."; fi
}

remove_caches() {
    say "Removing .venv, caches and test results"
    rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache test-results
    find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
}

remove_images() {
    local images
    images=$(docker image ls --format '{{.Repository}}:{{.Tag}}' 2>/dev/null | grep -E '^(buttcloud-pub:|local/node:20-bookworm-slim$)') || return 0
    say "Removing the images" $images
    docker image rm $images >/dev/null || say "Some are in use, and stay."
}

refuse_while_running
remove_pubs
remove_var
remove_caches
[ "$kept" = 1 ] || remove_images
say "Left as they are: Debian's packages, the Docker engine and its swarm." \
    "docker swarm leave --force ends the swarm and removes every service in it, also those of others." \
    "docker image prune frees what is left of builds."
