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

# need_package COMMAND PACKAGE...: installs the packages when the command is missing.
need_package() {
    local command=$1
    shift
    if PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null; then return; fi
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

# Where cargo puts what it builds.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
