#!/bin/sh
# Renew every lock from the requirements beside it (`make lock`), or those of one environment's folder, wherever it is:
# `sh images/lock.sh ./my_env`. Pins that still satisfy the requirements are kept; `--upgrade` takes the newest
# releases, `-P package` those of one. Packages come from the index that uv is configured for. The CPU build of torch
# is not on PyPI: unless that index has it, say where it is with UV_FIND_LINKS (a folder or page) or UV_INDEX.
set -eu
own=
if [ -d "${1:-}" ]; then
    own=$(cd "$1" && pwd)
    shift
fi
cd "$(dirname "$0")/.."

# The pinned uv, which nobody needs to have: of the tools of images, without the ffmpeg beside it.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
awk '/^[a-z]/ {wanted = /^uv==/} wanted' images/build-tools.lock >"$tools/uv.lock"
"$tools/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    -r "$tools/uv.lock"

# Of all options, those that keep addresses and paths of this machine out of the files matter most.
lock() {
    folder=$1 python=$2 source=$3 target=$4
    shift 4
    echo "$folder/$target"
    (
        cd "$folder"
        "$tools/bin/uv" pip compile --quiet --no-config --generate-hashes --only-binary :all: \
            --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
            --python-version "$python" "$@" "$source" -o "$target"
    )
}

# requirements.cpu.in and requirements.cuda.in where there are several variants, or else requirements.in
environment() {
    where=$1
    shift
    version=$(sed -n 's/^python: *["'\'']\{0,1\}\([0-9.]*\).*/\1/p' "$where/env.yaml")
    for file in "$where"/requirements.*.in; do
        [ -e "$file" ] || file=$where/requirements.in
        name=$(basename "$file" .in)
        # a CPU build that lies in find-links would satisfy the requirements of the other one as well
        case $name in *.cuda) links= ;; *) links=${UV_FIND_LINKS:-} ;; esac
        UV_FIND_LINKS=$links lock "$where" "$version" "$name.in" "$name.lock" \
            --python-platform x86_64-manylinux_2_28 "$@"
    done
}

if [ -n "$own" ]; then
    environment "$own" "$@"
    exit
fi
for each in images/*/requirements.in; do
    environment "$(dirname "$each")" "$@"
done
lock images 3.11 build-tools.in build-tools.lock "$@"
lock orchestrator 3.10 requirements.in requirements.lock --universal "$@"
lock tests 3.10 requirements.in requirements.lock --universal "$@"
lock tests 3.7 requirements-py37.in requirements-py37.lock "$@"
