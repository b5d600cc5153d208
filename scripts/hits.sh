#!/bin/sh
# A resident hit beside quick_cache, moka, foyer, dashmap and a bare map: builds benches/peers and runs it.
#   scripts/hits.sh [--rounds N] [--touch]
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --manifest-path benches/peers/Cargo.toml --target-dir target/peers
exec target/peers/release/flyloft-peers "$@"
