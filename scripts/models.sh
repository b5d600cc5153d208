#!/bin/sh
# Every interleaving of the resident table's reader protocol (src/residency/hold/models.rs), by loom.
set -eu
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg flyloft_loom" exec cargo test --release --lib --no-default-features --target-dir target/models residency::hold::models "$@"
