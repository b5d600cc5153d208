#!/usr/bin/env bash
# Fetches larger real trees for benches and soak runs into .corpus/, which git ignores:
#
#   docs        the toolchain's HTML documentation, about 50,000 small files (where rust-docs is installed)
#   neverball   the data of the game Neverball, 85 MB: many small and middling files of mixed kinds
#   supertux    the data of SuperTuxKart, 700 MB: media, mostly compressed already
#
# The games come from Debian's packages by name. A tree that is there already is left alone.
# Usage: scripts/corpus.sh [docs|neverball|supertux]...      (default: all three)
# Prints one line per tree: name, folder, files, bytes.
set -euo pipefail

corpus=$(cd "$(dirname "$0")/.." && pwd)/.corpus

fail() {
    echo "corpus.sh: $*" >&2
    exit 1
}

# The package lists are refreshed once, and only when a download did not work without it.
download() {
    local package=$1 into=$2
    (cd "$into" && apt-get download "$package") >"$into/log" 2>&1 && return
    local root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && root=(sudo -n)
    fi
    "${root[@]}" apt-get update >>"$into/log" 2>&1 || true
    (cd "$into" && apt-get download "$package") >>"$into/log" 2>&1 && return
    fail "$package: apt-get cannot download it: $(grep -E '^[EW]:' "$into/log" | tail -n 1 || true)"
}

# A package's folder of data, unpacked beside its place and renamed into it, so that an interrupted run leaves nothing half done.
from_debian() {
    local name=$1 package=$2 inside=$3 part=$corpus/$1.part
    [ -d "$corpus/$name" ] && return
    command -v apt-get >/dev/null || fail "$name: needs apt-get, which this system does not have; put a tree at $corpus/$name instead"
    command -v dpkg >/dev/null || fail "$name: needs dpkg, which this system does not have; put a tree at $corpus/$name instead"
    echo "corpus.sh: fetching $package" >&2
    rm -rf "$part"
    mkdir -p "$part"
    # apt drops its rights to the user _apt, who must be able to write here or it warns.
    download "$package" "$part"
    dpkg -x "$part/$package"_*.deb "$part/tree" || fail "$name: dpkg cannot unpack $package; is the disk full? ($part)"
    [ -d "$part/tree/$inside" ] || fail "$name: $package has no folder $inside any more; correct the path in scripts/corpus.sh"
    mv "$part/tree/$inside" "$corpus/$name"
    rm -rf "$part"
}

# The documentation is linked, not copied: it is large and never written.
docs() {
    local from
    [ -d "$corpus/docs/" ] && return
    for from in "$(rustc --print sysroot 2>/dev/null || true)"/share/doc/rust/html \
        "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*/share/doc/rust/html; do
        if [ -d "$from" ]; then
            ln -sfn "$from" "$corpus/docs"
            return
        fi
    done
    fail "docs: no toolchain here has its documentation; run: rustup component add rust-docs"
}

[ $# -gt 0 ] || set -- docs neverball supertux
mkdir -p "$corpus"
for name in "$@"; do
    case $name in
        docs) docs ;;
        neverball) from_debian neverball neverball-data usr/share/games/neverball ;;
        supertux) from_debian supertux supertuxkart-data usr/share/games/supertuxkart ;;
        *) fail "'$name' is not a tree of the corpus; there are docs, neverball and supertux" ;;
    esac
    # `find -H` enters the link itself, no other.
    find -H "$corpus/$name" -type f -printf '%s\n' |
        awk -v name="$name" -v folder="$corpus/$name" '{ bytes += $1 } END { printf "%-10s %s  %d files  %d bytes\n", name, folder, NR, bytes }'
done
