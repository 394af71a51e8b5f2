# Shared by the set-up scripts, which source it. Bash 3.2 (macOS) is enough.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
var=${BUTTCLOUD_VAR:-$root/var}
logs=$var/setup-logs

say() { printf '%s\n' "$*"; }

# die SENTENCE [REMEDY...]: every error of the set-up ends here.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
can_apt() { is_root && have apt-get; }

# `su` without a dash leaves root without the folders where dockerd and debootstrap live.
if is_root; then PATH=$PATH:/usr/sbin:/sbin; fi

# bounded SECONDS COMMAND...: macOS has no timeout(1); there the command runs without a bound.
bounded() {
    local seconds=$1
    shift
    if have timeout; then timeout "$seconds" "$@"; else "$@"; fi
}

sha256() { if have sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# need_space MEGABYTES FOLDER...: a full disk is found before the long step, not in its middle.
need_space() {
    local needed=$1 folder free
    shift
    for folder in "$@"; do
        [ -d "$folder" ] || continue
        free=$(df -Pk "$folder" | awk 'NR == 2 {print int($4 / 1024)}')
        [ "${free:-$needed}" -ge "$needed" ] || die "The disk of $folder has only $free MB free, and this needs $needed MB." \
            "Make room there and run the command again."
    done
}

# --- Long commands: output into a log, the newest line of it on the screen, Ctrl-C without half states. ---

job=""            # process group of the long command that runs now
job_finishes=""   # set while it must not be cut off (apt)

# long_step TITLE LOG COMMAND...: returns the command's status; on failure the log's end is shown.
long_step() {
    local title=$1 log=$logs/$2.log began=$SECONDS status=0
    shift 2
    mkdir -p "$logs"
    say "$title"
    # Job control gives the command a process group of its own: Ctrl-C reaches us alone, and we decide.
    set -m
    "$@" >"$log" 2>&1 </dev/null 9>&- &
    job=$!
    set +m
    show_progress "$log" "$began"
    wait "$job" || status=$?
    job=""
    if [ "$status" -eq 0 ]; then say "  done in $((SECONDS - began)) s"; return 0; fi
    { tail -n 15 "$log" | sed 's/^/  | /'; say "  failed after $((SECONDS - began)) s, all of it in $log"; } >&2
    return "$status"
}

show_progress() {
    local log=$1 began=$2 next=3
    while kill -0 "$job" 2>/dev/null; do
        sleep 0.2
        [ $((SECONDS - began)) -ge "$next" ] || continue
        next=$((SECONDS - began + 3))
        printf '  %3d s  %s\n' $((SECONDS - began)) "$(newest_line "$log")"
    done
}

# Without colours, and without the build's "Running in 56dd9a2d4898", which would hide what runs.
newest_line() {
    tail -c 2000 "$1" | tr '\r' '\n' | tr -cd '[:print:]\n' | sed 's/\[[0-9;]*m//g' | grep -v -e '^ *$' -e '^ --->' |
        tail -n 1 | cut -c 1-100 | grep . || say ...
}

interrupted() {
    trap '' INT TERM HUP
    if [ -n "$job" ]; then
        if [ -n "$job_finishes" ]; then say "Stopping after $job_finishes ..." >&2; else kill -TERM -- "-$job" 2>/dev/null; fi
        wait "$job"
    fi
    say "Stopped. Run the command again to go on." >&2
    exit "$1"
}

# Also for subshells, which do not inherit it.
catch_signals() {
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM HUP
}
catch_signals

# --- Debian packages ---

# apt_install WHY PACKAGE...: only after can_apt. Old or absent package lists are fetched when the first try fails.
apt_install() {
    local why=$1 status=0
    shift
    job_finishes="apt has finished"
    long_step "Installing Debian's $* ($why)" apt apt_now "$@" || status=$?
    job_finishes=""
    hash -r
    return "$status"
}

apt_now() {
    export DEBIAN_FRONTEND=noninteractive
    apt_get install "$@" || { apt_get update && apt_get install "$@"; }
}

apt_get() { apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"; }

# Newest version that apt offers of a package; nothing when it knows none.
apt_offers() { apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }
