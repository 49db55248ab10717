#!/usr/bin/env bash
# Make a stand-in for an official Python image where no image registry can be reached: .ci/standin.sh 3.7 TAG
# A minimal Debian from its packages and this machine's own Python of that version, under /usr/local as in the
# official image. It gets a name of its own: nothing may be taken for the official image that is not it.
set -euo pipefail
version=$1 tag=$2
base=${STANDIN_BASE:-standin/debian:bookworm}

docker image inspect "$tag" >/dev/null 2>&1 && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! docker image inspect "$base" >/dev/null 2>&1; then
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; } >"$work/log" 2>&1
    uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1 || true)
    # libffi, sqlite and their like are what a Python is linked to
    debootstrap --variant=minbase --include=ca-certificates,libffi8,libsqlite3-0,libssl3,zlib1g,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1 \
        bookworm "$work/tree" ${uri:+"$uri"} >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
    rm -rf "$work/tree/var/cache/apt/archives" "$work/tree/var/lib/apt/lists" "$work/tree/usr/share/doc" "$work/tree/usr/share/locale"
    mkdir -p "$work/tree/var/cache/apt/archives/partial" "$work/tree/var/lib/apt/lists/partial"
    tar -C "$work/tree" -c . | docker import - "$base" >/dev/null
fi

# The one that really runs: the shims of pyenv answer to every version.
prefix=$("${PYTHON:-python3}" -c 'import sys; from orchestrator.environments import interpreters; print(interpreters.find(sys.argv[1]).resolve().parent.parent)' "$version")
mkdir -p "$work/context/python/bin"
cp -a "$prefix/lib" "$prefix/include" "$work/context/python/"
cp -a "$prefix/bin/python$version" "$work/context/python/bin/"
lib="$work/context/python/lib/python$version"
rm -rf "$lib/test" "$lib"/config-* "$lib/site-packages" "$lib"/*/tests "$work/context/python/lib"/*.a
mkdir "$lib/site-packages"
find "$work/context" -name __pycache__ -type d -prune -exec rm -rf {} +
cat >"$work/context/Dockerfile" <<DOCKERFILE
FROM $base
COPY python/ /usr/local/
RUN ln -s python$version /usr/local/bin/python3 && ln -s python$version /usr/local/bin/python && ldconfig && \\
    python -m ensurepip && python -m pip --version
CMD ["python3"]
DOCKERFILE
DOCKER_BUILDKIT=1 docker build -q -t "$tag" "$work/context" >/dev/null
