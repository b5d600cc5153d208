#!/bin/sh
# From a finished write to new bytes in a reader's hands, beside a bare notify loop and Bevy's asset server: builds the
# peer in benches/peers and runs benches/reload.rs with it.
#   scripts/reload.sh [edits|many|start|memory]... [--files 1000,50000,100000] [--edits N] [--blocks N]
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --manifest-path benches/peers/Cargo.toml --target-dir target/peers \
    --features bevy --bin flyloft-bevy
exec cargo bench --quiet --bench reload -- --bevy target/peers/release/flyloft-bevy "$@"
