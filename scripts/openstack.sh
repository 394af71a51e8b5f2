# Installs the OpenStack that tests of the machine driver talk to: in an environment of its own, since its packages and
# ours do not fit together, and with Debian's MariaDB. Nothing of it runs outside the tests (tests/support/openstack).

openstack=$var/openstack
openstack_packages=tests/support/openstack/requirements.txt

wanted_openstack() { say "$(sha256 $openstack_packages | cut -c 1-64) $(venv_version) $root"; }

ready_openstack() {
    have mariadbd || ! can_apt || apt_install "the tests on OpenStack need it" mariadb-server-core
    have mariadbd || { say "There is no mariadbd (Debian: sudo apt-get install mariadb-server-core), so the tests on OpenStack will be skipped." >&2; return; }
    [ "$(cat "$openstack/stamp" 2>/dev/null)" != "$(wanted_openstack)" ] || return 0
    (catch_signals && install_openstack) || say "So the tests on OpenStack will be skipped." >&2
}

install_openstack() {
    need_space 1500 "$var"
    rm -rf "$openstack"
    long_step "Installing an OpenStack for tests" openstack openstack_now || die "It could not be installed."
    wanted_openstack >"$openstack/stamp"
}

openstack_now() {
    .venv/bin/python -m venv "$openstack" &&
        "$openstack/bin/python" -m pip install --disable-pip-version-check --progress-bar off --no-compile --no-deps -r $openstack_packages || return
    # Each of its servers starts in half the time. A few packages hold files that no Python 3 compiles.
    env -u PYTHONDONTWRITEBYTECODE "$openstack/bin/python" -m compileall -qq -j 0 "$openstack/lib" || true
}
