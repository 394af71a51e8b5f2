# Finds a Python that fits and keeps .venv equal to requirements.lock.

stamp=.venv/buttcloud.stamp

# Version of an interpreter ("3.13.0"), or nothing when it does not run (a pyenv shim without a version) or is too old.
fitting_version() {
    "$1" -c 'import sys; v = sys.version_info; v >= (3, 12) and print("%d.%d.%d" % v[:3])' 2>/dev/null
}

python_candidates() {
    printf '%s\n' ${PYTHON:+"$PYTHON"} python3.13 python3.14 python3.12 python3
    printf '%s\n' "${HOME:-}"/.pyenv/versions/3.1[3-9]*/bin/python "${HOME:-}"/.pyenv/versions/3.12*/bin/python
}

# The first candidate that fits; status 1 when there is none. The answer is the interpreter behind a shim or another
# virtual environment (an active .venv of ours, say, which is about to be thrown away).
search_python() {
    local candidate
    while IFS= read -r candidate; do
        if [ -n "$(fitting_version "$candidate")" ]; then
            "$candidate" -c 'import sys; print(sys._base_executable)'
            return 0
        fi
    done < <(python_candidates)
    return 1
}

find_python() {
    [ -z "${PYTHON:-}" ] || [ -n "$(fitting_version "$PYTHON")" ] || say "PYTHON=$PYTHON is no Python 3.12 or newer: looking for another."
    python=$(search_python) && return
    if can_apt; then
        [ -n "$(apt_offers python3)" ] || apt_update
        if dpkg --compare-versions "$(apt_offers python3)" ge 3.12; then
            apt_install "no Python 3.12 or newer was found" python3 python3-venv || die "Python could not be installed."
            python=$(search_python) && return
        fi
    fi
    die "No Python 3.12 or newer was found." \
        "On Debian 13: apt-get install python3 python3-venv. Elsewhere: pyenv install 3.13, or uv python install 3.13." \
        "Or name one: PYTHON=/path/to/python make run"
}

apt_update() {
    job_finishes="apt has finished"
    long_step "Fetching Debian's package lists" apt-update apt-get update || true
    job_finishes=""
}

# Debian keeps the parts that make a virtual environment in a package of their own.
need_venv_module() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    local package
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    if can_apt; then apt_install "$python cannot make virtual environments yet" "$package" || true; fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments." "On Debian: sudo apt-get install $package"
}

# What .venv must be: these packages, on this Python, at this place (its scripts hold their folder's name).
wanted_stamp() { say "$(sha256 requirements.lock | cut -c 1-64) $1 $root"; }

venv_version() { [ ! -x .venv/bin/python ] || fitting_version .venv/bin/python; }

# A venv is thrown away when its installation was cut off, its Python is gone or moved, or another one is asked for.
venv_is_usable() {
    local version
    version=$(venv_version)
    [ -n "$version" ] || return 1
    case "$(cat "$stamp" 2>/dev/null)" in "" | *" $root") ;; *) return 1 ;; esac
    case "$(fitting_version "${PYTHON:-false}")" in "" | "$version") ;; *) return 1 ;; esac
}

ready_python() {
    if venv_is_usable; then
        [ "$(cat "$stamp" 2>/dev/null)" != "$(wanted_stamp "$(venv_version)")" ] || return 0
    else
        make_venv
    fi
    install_packages
}

make_venv() {
    find_python
    need_venv_module
    need_space 1500 "$root"
    rm -rf .venv && mkdir .venv || die "The folder $root/.venv cannot be written." "Remove it, as the user whom it belongs to."
    say unfinished >"$stamp"
    long_step "Making .venv with $python ($(fitting_version "$python"))" venv "$python" -m venv .venv ||
        die "The virtual environment could not be made."
}

# The lock file names every package with its hashes, so pip has nothing to resolve and nothing else can come in.
install_packages() {
    need_space 1000 "$root" "${TMPDIR:-/tmp}"
    say unfinished >"$stamp"
    unset PIP_TARGET PIP_PREFIX
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null 2>&1
    PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 long_step "Installing the Python packages of requirements.lock" pip \
        .venv/bin/python -m pip install --progress-bar off --no-compile --no-deps --require-hashes -r requirements.lock ||
        die "The Python packages could not be installed." "Look at the lines above; most often the network or the package index is away."
    # Not by pip, which compiles one file after the other. A few packages hold files that no Python 3 compiles.
    long_step "Compiling them, which makes each start seconds faster" compile compile_packages
    wanted_stamp "$(venv_version)" >"$stamp"
}

compile_packages() { .venv/bin/python -m compileall -qq -j 0 .venv/lib || true; }
