#!/bin/sh
# Renew every lock from the requirements beside it (`make lock`); needs uv on PATH. Pins that still satisfy the
# requirements are kept; `sh images/lock.sh --upgrade` takes the newest releases, `-P package` those of one.
# Packages come from the index that uv is configured for. The CPU build of torch is not on PyPI: unless that
# index has it, say where it is with UV_FIND_LINKS (a folder or page) or UV_INDEX.
set -eu
cd "$(dirname "$0")/.."

# Of all options, those that keep addresses and paths of this machine out of the files matter most.
lock() {
    folder=$1 python=$2 source=$3 target=$4
    shift 4
    echo "$folder/$target"
    (
        cd "$folder"
        uv pip compile --quiet --no-config --generate-hashes --only-binary :all: \
            --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
            --python-version "$python" "$@" "$source" -o "$target"
    )
}

linux="--python-platform x86_64-manylinux_2_28"
# shellcheck disable=SC2086  # the two words of $linux are two arguments
{
    lock images/legacy-py37 3.7 requirements.in requirements.lock $linux "$@"
    lock images/tf-cuda 3.11 requirements.cpu.in requirements.cpu.lock $linux "$@"
    lock images/tf-cuda 3.11 requirements.cuda.in requirements.cuda.lock $linux "$@"
    lock images/torch-cuda 3.11 requirements.cpu.in requirements.cpu.lock $linux "$@"
    # a CPU build that lies in find-links would satisfy this one as well
    UV_FIND_LINKS="" lock images/torch-cuda 3.11 requirements.cuda.in requirements.cuda.lock $linux "$@"
}
lock images 3.11 build-tools.in build-tools.lock "$@"
lock orchestrator 3.10 requirements.in requirements.lock --universal "$@"
lock tests 3.10 requirements.in requirements.lock --universal "$@"
lock tests 3.7 requirements-py37.in requirements-py37.lock "$@"
