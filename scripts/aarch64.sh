#!/usr/bin/env bash
# Builds the tests for 64-bit Arm Linux and runs them under QEMU's user emulation. Arguments go to `cargo test`:
# scripts/aarch64.sh --test cli
# Needs: rustup target add aarch64-unknown-linux-gnu; on Debian: apt-get install gcc-aarch64-linux-gnu
# libc6-dev-arm64-cross qemu-user
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
fail() {
    echo "scripts/aarch64.sh: $*" >&2
    exit 1
}
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing; on Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
done
root=/usr/aarch64-linux-gnu
[ -e "$root/lib/ld-linux-aarch64.so.1" ] || fail "there is no C library under $root; on Debian: apt-get install libc6-dev-arm64-cross"
[ -d "$(rustc --print target-libdir --target "$target")" ] || fail "run: rustup target add $target"

# The emulator finds the C library by the first; tests start the program through the second.
export QEMU_LD_PREFIX=$root FLYLOFT_TEST_RUNNER=qemu-aarch64
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/targets
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
# The emulator is slow: optimised code, and fewer cases for the tests that make up their own.
export CARGO_PROFILE_DEV_OPT_LEVEL=${CARGO_PROFILE_DEV_OPT_LEVEL:-1} PROPTEST_CASES=${PROPTEST_CASES:-8}
cargo test --locked --target "$target" "$@"
