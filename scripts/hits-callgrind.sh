#!/bin/sh
# Instructions of a resident hit, counted by valgrind: the same in every run, but for the set-up, which is not counted.
#   scripts/hits-callgrind.sh [counted|snapshot|guard|bare|quick_cache ...]
# Prints instructions, data accesses per hit and, per subject, where the instructions are. Needs valgrind.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --manifest-path benches/peers/Cargo.toml --target-dir target/peers
[ $# -gt 0 ] || set -- counted snapshot guard bare quick_cache
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for subject in "$@"; do
  valgrind --tool=callgrind --callgrind-out-file="$out" --collect-bus=yes --collect-atstart=no \
    --toggle-collect='*counted_hits*' target/peers/release/flyloft-peers --count "$subject" 2>/dev/null >&2
  echo "== $subject: per 100,000 hits"
  callgrind_annotate --auto=no "$out" | grep -E 'PROGRAM TOTALS|^ *[0-9,]+ \([ 0-9.]+%\).*(flyloft|std|core|alloc|counted|quick)' | head -8
done
