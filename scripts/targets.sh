#!/usr/bin/env bash
# Checks the crate for every other system whose standard library is installed (`rustup target add TARGET`), with the
# default features and without any, and says what it checked. Run it from anywhere: scripts/targets.sh
#
# zstd and blake3 bring C and assembly. Where a compiler for the target is installed it compiles them; where none is, a
# stand-in makes empty objects for it: `cargo check` never links, so the Rust is checked all the same, and the line that
# is printed says so.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

targets=(x86_64-pc-windows-gnu aarch64-apple-darwin aarch64-unknown-linux-gnu)
declare -A compilers=(
    [x86_64-pc-windows-gnu]=x86_64-w64-mingw32-gcc
    [aarch64-apple-darwin]=oa64-clang
    [aarch64-unknown-linux-gnu]=aarch64-linux-gnu-gcc
)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# For a compiler and an archiver: makes the file that `-o`, or for an archive the name ending in .a, asks for.
cat >"$scratch/stand-in" <<'SH'
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -o) shift && : >"$1" ;;
    -E | --version) exit 0 ;;
    *.a) : >"$1" ;;
    esac
    shift
done
SH
chmod +x "$scratch/stand-in"

# compiles COMPILER: whether it is there and finds the headers of its system.
compiles() {
    command -v "$1" >/dev/null && echo '#include <stdlib.h>' | "$1" -x c -c -o /dev/null - 2>/dev/null
}

installed=$(rustc --print target-libdir >/dev/null && rustup target list --installed 2>/dev/null || true)
own=$(rustc -vV | sed -n 's/^host: //p')
for target in "${targets[@]}"; do
    [ "$target" != "$own" ] || continue
    if ! grep -qx "$target" <<<"$installed"; then
        echo "$target: not checked; its standard library is missing (rustup target add $target)"
        continue
    fi
    variable=${target//-/_}
    with="C compiled by ${compilers[$target]}"
    settings=()
    if ! compiles "${compilers[$target]}"; then
        with="C left out, since there is no ${compilers[$target]} that finds its headers"
        settings=("CC_$variable=$scratch/stand-in" "CXX_$variable=$scratch/stand-in" "AR_$variable=$scratch/stand-in")
    fi
    folder=${CARGO_TARGET_DIR:-target}/targets
    env "${settings[@]}" CARGO_TARGET_DIR="$folder" cargo clippy --locked --quiet --all-targets --target "$target" -- -D warnings
    env "${settings[@]}" CARGO_TARGET_DIR="$folder" cargo clippy --locked --quiet --lib --no-default-features --target "$target" -- -D warnings
    echo "$target: checked, with the default features and without; $with"
done
