#!/usr/bin/env bash
# Make sure that a Docker engine answers, with BuildKit and compose: `. .ci/engine.sh` or `bash .ci/engine.sh`.
# Where one answers, nothing is done but what is missing beside it. Otherwise, as root on Debian, one is installed
# from Debian's packages and started; it ends with the machine. Exits with 77 where that cannot be done.
#
#   ENGINE_LOG    file for what the engine prints
#   ENGINE_DATA   folder for its images and containers
#   DISTRIBUTION  folder for Debian's docker-registry, which the tests push to on loopback; it is not started
#   NEWEST        folder for the compose and buildx of Debian's next release, beside those of this one; tests take both
#   ENGINE_STUBS  folder that is put first on the engine's PATH: stand-ins for programs of hardware that is not here
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=${ENGINE_LOG:-/var/log/dockerd-ci.log}
stubs=${ENGINE_STUBS:-$here/stub}
plugins=/usr/local/lib/docker/cli-plugins
registry=${DISTRIBUTION:-/usr/local/lib/consort-registry}
newest=${NEWEST:-/usr/local/lib/consort-newest}/cli-plugins

give_up() {
    echo "engine: $1" >&2
    exit 77
}

answers() {
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# Quietly: what apt says is only of interest where it fails.
install_packages() {
    apt-get update -qq >"$log.apt" 2>&1 && apt-get install -y -qq --no-install-recommends "$@" >>"$log.apt" 2>&1 ||
        { tail -n 3 "$log.apt" >&2; give_up "cannot install $*"; }
}

# take_out RELEASE FOLDER FILES PACKAGE...: take programs out of packages of a release of Debian, whose FILES need
# nothing but libc; lists of packages go into a folder of their own, so that apt here stays as it is.
take_out() {
    local work uri release=$1 folder=$2 files=$3
    shift 3
    mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ] || give_up "$* is missing, and $folder cannot be written"
    work=$(mktemp -d)
    uri=$(sed -n -e 's/^URIs: *//p' -e 's/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1 || true)
    [ -n "$uri" ] || give_up "no Debian mirror is configured"
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $release main" >"$work/sources.list"
    local options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists")
    (
        cd "$work"
        apt-get -qq "${options[@]}" update
        apt-get -qq "${options[@]}" download "$@"
        for package in ./*.deb; do dpkg -x "$package" tree; done
    ) >"$log.plugins" 2>&1 || { tail -n 3 "$log.plugins" >&2; give_up "cannot get $* of $release"; }
    find "$work/tree" -path "$files" -type f -exec install -m 755 {} "$folder/" \;
    rm -rf "$work"
}

# Of another release, as bookworm has neither.
add_plugins() {
    take_out "$1" "$2" '*cli-plugins/docker-*' docker-compose docker-buildx
}

start() {
    PATH="$stubs:$PATH" nohup dockerd ${ENGINE_DATA:+--data-root "$ENGINE_DATA"} >"$log" 2>&1 </dev/null &
    for _ in $(seq 150); do
        answers && return
        sleep 0.2
    done
    tail -n 3 "$log" >&2
    give_up "dockerd does not answer; its words are in $log"
}

if ! answers; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || give_up "no Docker engine answers, and only root on Debian can start one"
    command -v dockerd >/dev/null || install_packages docker.io iptables
    start
fi
{ docker buildx version && docker compose version; } >/dev/null 2>&1 ||
    add_plugins trixie "$plugins"
[ -x "$newest/docker-compose" ] || ! command -v apt-get >/dev/null || add_plugins forky "$newest"
[ -x "$registry/docker-registry" ] || ! command -v apt-get >/dev/null ||
    take_out bookworm "$registry" '*/bin/docker-registry' docker-registry
docker version --format 'engine: Docker {{.Server.Version}}, client {{.Client.Version}}'
