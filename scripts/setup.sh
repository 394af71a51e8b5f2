#!/usr/bin/env bash
# Sets up what is missing, and does nothing (in well under a second) when nothing is.
#   scripts/setup.sh python   .venv from requirements.lock
#   scripts/setup.sh engine   and a Docker engine that is a swarm
#   scripts/setup.sh image    (no .venv) engine, swarm and the pub image
#   scripts/setup.sh run      all of these
#   scripts/setup.sh test     all of these, Chromium, a name server, OpenStack and what the lab of many hubs needs; what
#                           cannot be had is named, and its tests skip
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/lib.sh"
. "$here/python.sh"
. "$here/engine.sh"
. "$here/image.sh"
. "$here/openstack.sh"

# Two set-ups at once would install into the same folders; the second one waits.
one_at_a_time() {
    mkdir -p "$var" 2>/dev/null && [ -w "$var" ] && [ -w "$root" ] ||
        die "You may not write in $root and $var." "Take the folder over: sudo chown -R $(id -un) $root"
    have flock || return 0
    exec 9>"$var/setup.lock"
    flock -n 9 || { say "Another set-up is at work here: waiting for it."; flock 9; }
}

ready_docker() {
    ready_engine
    ready_swarm
    ready_image
}

# In a subshell, since its errors are no end here: the tests that need an engine skip themselves.
ready_docker_for_tests() {
    (catch_signals && ready_docker && say "Docker $engine, pub image $pub_image are ready.") || say "So the live tests will be skipped." >&2
}

ready_chromium() {
    have chromium || have chromium-browser || have google-chrome || {
        ! can_apt || apt_install "the browser tests need it" chromium
        have chromium || say "There is no Chromium (Debian: sudo apt-get install chromium), so the browser tests will be skipped." >&2
    }
}

# Machines made of namespaces, each with an engine of its own: tests/support/lab.
ready_lab() {
    local missing=()
    have ip || missing+=(iproute2)
    have iptables || missing+=(iptables)
    have tini || missing+=(tini)
    have busybox || missing+=(busybox-static)
    have openssl || missing+=(openssl)
    [ ${#missing[@]} -gt 0 ] && can_apt || return 0
    apt_install "tests of many hubs need it" "${missing[@]}" || say "So the tests of many hubs will be skipped." >&2
}

# Debian starts what it installs. The tests start one of their own, and this machine needs none.
ready_name_server() {
    have knotd || {
        ! can_apt || { apt_install "the tests of a name server need it" knot && systemctl disable --now knot >/dev/null 2>&1; }
        have knotd || say "There is no knotd (Debian: sudo apt-get install knot), so the tests of a name server will be skipped." >&2
    }
}

main() {
    local began=$SECONDS
    one_at_a_time
    need_space 200 "$root" "$var"
    case "$1" in
        python) ready_python ;;
        engine) ready_engine && ready_swarm ;;
        image) ready_docker ;;
        run) ready_python && ready_docker ;;
        test) ready_python && ready_chromium && ready_name_server && ready_lab && ready_openstack && ready_docker_for_tests ;;
        *) die "scripts/setup.sh does not know '$1'." "It knows: python, engine, image, run, test." ;;
    esac || exit 1
    local version
    version=$(venv_version)
    say "Set-up is complete${version:+, Python $version}${engine:+, Docker $engine}${pub_image:+, $pub_image} ($((SECONDS - began)) s)."
}

main "${1:-run}"
