#!/bin/sh
# Hit ratios of the eviction policies beside moka, mini-moka, quick_cache, foyer and the offline limits: builds benches/peers and runs it.
#   scripts/cache.sh [FOLDER|TRACE ..] [--sizes 0.1%,1%,10%] [--policies NAMES] [--peers NAMES|--no-peers] [--no-made-up]
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --manifest-path benches/peers/Cargo.toml --target-dir target/peers --bin flyloft-cache
exec target/peers/release/flyloft-cache "$@"
