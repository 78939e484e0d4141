# Shared by the scripts beside it; not run by itself.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The folder of the repository, whatever the caller's folder is.
enter_repository() {
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
}

need_cargo() {
    # rustup writes here; a login shell would have it on its path.
    [[ -d "${HOME:-/nonexistent}/.cargo/bin" ]] && PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || fail "cargo is missing; install Rust 1.89 or newer: https://rustup.rs"
}

# What cargo itself calls: the C of TLS and of the allocator is compiled with it.
need_compiler() {
    need_package cc build-essential
    need_package make build-essential
}

# need_package COMMAND PACKAGE...: installs the packages when the command is missing.
need_package() {
    local command=$1
    shift
    if PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null; then return; fi
    install_packages "$command" "$@"
}

# install_packages WHAT PACKAGE...: installs the packages; WHAT is what is missing, for people.
install_packages() {
    local command=$1
    shift
    command -v apt-get >/dev/null || fail "$command is missing; install it (on Debian: $*)"
    say "$command is missing: installing $* with apt-get"
    local as_root=()
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null || fail "apt-get needs root; run once as root: apt-get install $*"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# A server of our own: no rights, ports or data of one that runs already are touched. Needs `scratch`, a
# folder; sets `server`, its process, for the caller's clean-up. $1: innodb-flush-log-at-trx-commit.
start_mariadb() {
    need_package mariadbd mariadb-server-core
    need_package mariadb mariadb-client-core
    PATH="$PATH:/usr/sbin:/sbin"
    local user folder=${scratch:?} data port
    data=$folder/data
    user=$(id -un)
    mkdir -m 0700 "$data"
    mariadb-install-db --no-defaults --user="$user" --datadir="$data" --auth-root-authentication-method=normal \
        --skip-test-db >"$folder/install.log" 2>&1 || { cat "$folder/install.log" >&2; fail "MariaDB could not be set up"; }
    # A free port may be taken by another before the server binds it: try a few.
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        mariadbd --no-defaults --user="$user" --datadir="$data" --socket="$folder/socket" --bind-address=127.0.0.1 \
            --port="$port" --skip-log-bin --innodb-flush-log-at-trx-commit="$1" --character-set-server=utf8mb4 \
            >"$folder/mariadb.log" 2>&1 </dev/null &
        server=$!
        for _ in {1..300}; do
            kill -0 "$server" 2>/dev/null || break
            if mariadb --no-defaults --protocol=tcp --host=127.0.0.1 --port="$port" --user=root -e 'SELECT 1' >/dev/null 2>&1; then
                export WAYBILL_TEST_MYSQL="mysql://root@127.0.0.1:$port"
                say "MariaDB listens on 127.0.0.1:$port (process $server)"
                return
            fi
            sleep 0.2
        done
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    done
    cat "$folder/mariadb.log" >&2
    fail "MariaDB did not start"
}

# Where cargo puts what it builds.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
