# Functions shared by the scripts in this folder; sourced, not run.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Changes to the repository's folder.
enter_repository() {
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
}

need_cargo() {
    # Where rustup installs cargo; only login shells have it on their path.
    [[ -d "${HOME:-/nonexistent}/.cargo/bin" ]] && PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || fail "cargo is missing; install Rust 1.89 or newer: https://rustup.rs"
}

# The C compiler and make, which build the TLS library and the allocator.
need_compiler() {
    need_package cc build-essential
    need_package make build-essential
}

# need_package COMMAND PACKAGE...: installs the packages if the command is missing.
need_package() {
    local command=$1
    shift
    if PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null; then return; fi
    install_packages "$command" "$@"
}

# install_packages WHAT PACKAGE...: installs the packages; WHAT is named in the message.
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

# Starts a private MariaDB without touching an existing server. Needs `scratch`, a folder; sets `server`, its
# process, for the caller's clean-up. $1: innodb-flush-log-at-trx-commit.
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
    # Another process may take the free port first: try a few.
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

# Cargo's target folder.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
