#!/usr/bin/env bash
# Proves a bundle's promises on real trees, and prints a line for each.
#   scripts/prove.sh [FOLDER ...]     default: examples/assets and every tree that scripts/corpus.sh has fetched
# Needs: cargo, tar, zstd, diff. Exits 1 at the first promise that does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --bin flyloft </dev/null
flyloft=$PWD/target/release/flyloft
trees=("$@")
if [ ${#trees[@]} -eq 0 ]; then
  trees=(examples/assets)
  for tree in .corpus/*/; do [ -d "$tree" ] && trees+=("${tree%/}"); done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '%-24s %s\n' "$name" "$*"; }
# Its warnings are about the tree, not about us.
pack() { "$flyloft" pack "$@" >"$work/log" 2>&1 || fail "pack: $(tail -n 1 "$work/log")"; }
fail() { printf '%-24s FAILED: %s\n' "$name" "$*" >&2; exit 1; }

for tree in "${trees[@]}"; do
  name=$(basename "$tree")
  cp -aL "$tree" "$work/tree" 2>/dev/null || say "its links to nothing are left out"
  files=$(find "$work/tree" -type f | wc -l)
  if grep -qs '^\[\[transform\]\]' "$work/tree/flyloft.toml"; then
    # Its own rules rewrite some files: from here on the tree is what they leave, which they must leave as it is.
    pack "$work/tree" -o "$work/a.loft"
    rm -rf "$work/tree"
    "$flyloft" unpack "$work/a.loft" -o "$work/tree" >/dev/null
    rm "$work/a.loft"
    say "$files files, taken as the transforms of its flyloft.toml leave them"
  fi
  for layout in access dense; do
    pack "$work/tree" -o "$work/a.loft" --layout $layout
    pack "$work/tree" -o "$work/b.loft" --layout $layout
    cmp -s "$work/a.loft" "$work/b.loft" || fail "$layout: two packs differ"
    "$flyloft" verify "$work/a.loft" >/dev/null || fail "$layout: verify"
    "$flyloft" unpack "$work/a.loft" -o "$work/out" >/dev/null
    diff -r "$work/tree" "$work/out" || fail "$layout: the unpacked tree differs"
    before=$(sha256sum <"$work/a.loft")
    pack "$work/tree" -o "$work/a.loft"
    [ "$before" = "$(sha256sum <"$work/a.loft")" ] || fail "$layout: packing an unchanged tree changed a byte"
    say "$layout: $files files packed twice alike, verified, unpacked alike, packed again without a change"

    victim=$(find "$work/tree" -type f -size +1k -size -64k | sort | sed -n "$((files / 2 % 97 + 1))p")
    [ -n "$victim" ] || victim=$(find "$work/tree" -type f | sort | head -n 1)
    size=$(stat -c %s "$work/a.loft")
    printf 'one line more\n' >>"$victim"
    pack "$work/tree" -o "$work/a.loft"
    "$flyloft" verify "$work/a.loft" >/dev/null || fail "$layout: verify after an edit"
    say "$layout: one file of $(stat -c %s "$victim") bytes edited: $(($(stat -c %s "$work/a.loft") - size)) bytes appended"
    "$flyloft" compact "$work/a.loft" >/dev/null
    "$flyloft" verify "$work/a.loft" >/dev/null || fail "$layout: verify after compaction"
    rm -rf "$work/out" "$work/b.loft"
    "$flyloft" unpack "$work/a.loft" -o "$work/out" >/dev/null
    diff -r "$work/tree" "$work/out" || fail "$layout: the compacted bundle unpacks to something else"
    say "$layout: compacted, verified, unpacked alike"
    rm -rf "$work/out" "$work/a.loft"
  done
  rm -rf "$work/tree"
done
echo "every promise held"
