# Finds a Docker engine that answers, and makes it a one-node swarm if it is not in one.

dockerd_log=/var/log/buttcloud-dockerd.log

# Sets engine (its version, empty when it does not answer), swarm, is_manager, docker_root and engine_error.
look_at_engine() {
    local answer
    answer=$(bounded 20 docker info --format 'FACTS|{{.ServerVersion}}|{{.Swarm.LocalNodeState}}|{{.Swarm.ControlAvailable}}|{{.DockerRootDir}}' 2>&1)
    engine_error=$(printf '%s' "$answer" | grep -v '^FACTS|' | head -n 1)
    IFS='|' read -r _ engine swarm is_manager docker_root < <(printf '%s\n' "$answer" | grep '^FACTS|')
    [ -n "${engine:-}" ]
}

ready_engine() {
    have docker || install_docker_cli
    one_engine_for_all
    look_at_engine && return
    case "$engine_error" in
        *[Pp]"ermission denied"*)
            die "You may not talk to the Docker engine." "Join its group and log in anew: sudo usermod -aG docker $(id -un)" ;;
    esac
    [ -z "${DOCKER_HOST:-}" ] ||
        die "The Docker engine at DOCKER_HOST=$DOCKER_HOST does not answer." "Start it, or unset DOCKER_HOST to use this machine's own."
    have dockerd || install_engine
    look_at_engine || start_engine
}

# The site finds the engine by DOCKER_HOST, the docker command also by its context: both must mean the same one.
one_engine_for_all() {
    [ -z "${DOCKER_HOST:-}" ] || return 0
    [ -n "${DOCKER_CONTEXT:-}" ] || grep -qs currentContext "${DOCKER_CONFIG:-${HOME:-}/.docker}/config.json" || return 0
    local host
    host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)
    case "$host" in "" | unix:///var/run/docker.sock) return 0 ;; esac
    die "Your docker command uses another engine ($host) than the site would." "Make them one: export DOCKER_HOST=$host"
}

install_docker_cli() {
    if [ -n "${DOCKER_HOST:-}" ] || [ -S /var/run/docker.sock ]; then
        if can_apt; then
            apt_install "there is an engine, but no docker command" "$(docker_cli_package)" || true
        fi
        have docker || die "There is a Docker engine, but no docker command." "On Debian: sudo apt-get install $(docker_cli_package)"
    else
        install_engine
    fi
}

# Since Debian 13 the command has a package of its own.
docker_cli_package() { if [ -n "$(apt_offers docker-cli)" ]; then say docker-cli; else say docker.io; fi; }

docker_packages() { printf '%s\n' docker.io "$(docker_cli_package)" | sort -u; }

install_engine() {
    if can_apt; then
        [ -n "$(apt_offers docker.io)" ] || apt_update
        apt_install "there is no Docker engine on this machine" $(docker_packages) || true
        have dockerd && have docker && return
    fi
    die "No Docker engine was found." \
        "On Debian: sudo apt-get install docker.io && sudo usermod -aG docker $(id -un), then log in anew." \
        "Elsewhere: see docs.docker.com/engine/install. An engine at another place is named by DOCKER_HOST."
}

start_engine() {
    is_root || die "The Docker engine does not run." "Start it: sudo systemctl start docker"
    if [ -d /run/systemd/system ]; then
        say "Starting the Docker engine (systemctl stop docker stops it)"
        bounded 90 systemctl start docker || true
    elif ! kill -0 "$(cat /var/run/docker.pid 2>/dev/null)" 2>/dev/null; then
        have dockerd || die "The Docker engine does not run, and there is no dockerd to start here." "Start your engine, then run this again."
        say "Starting the Docker engine in the background (kill \$(cat /var/run/docker.pid) stops it; log: $dockerd_log)"
        setsid dockerd >>"$dockerd_log" 2>&1 </dev/null 9>&- &
    fi
    wait_for_engine
}

wait_for_engine() {
    local began=$SECONDS
    while ! look_at_engine; do
        if [ $((SECONDS - began)) -ge "${ENGINE_WAIT:-60}" ]; then
            { tail -n 15 "$dockerd_log" || journalctl --no-pager -n 15 -u docker; } 2>/dev/null | cut -c 1-200 | sed 's/^/  | /' >&2
            die "The Docker engine does not answer after $((SECONDS - began)) s." "The lines above are the end of its log."
        fi
        sleep 0.5
    done
    say "  it answers after $((SECONDS - began)) s"
}

ready_swarm() {
    case "$swarm/$is_manager" in
        active/true) ;;
        inactive/*) make_swarm ;;
        active/*) die "This Docker engine is a worker of another swarm, and services can be made on a manager only." \
            "Use a manager (export DOCKER_HOST=...), or take this engine out of that swarm: docker swarm leave" ;;
        locked/*) die "This machine's swarm is locked." "Unlock it: docker swarm unlock" ;;
        *) die "This machine's swarm is in the state '$swarm'." "See docker info; docker swarm leave --force takes the engine out of it (and removes all of its services)." ;;
    esac
}

# Loopback alone: nobody outside can join. One finished task is kept for each service, not five.
make_swarm() {
    local answer
    say "Making this Docker engine a swarm of one node"
    answer=$(bounded 60 docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377 \
        --task-history-limit 2 --dispatcher-heartbeat 20s 2>&1) || die "Docker could not make a swarm: $answer"
    say "  done; docker swarm leave --force undoes it, and removes every service of that swarm"
}
