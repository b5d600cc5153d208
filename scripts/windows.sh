#!/usr/bin/env bash
# Builds the tests for Windows and runs them under Wine. Arguments go to `cargo test`: scripts/windows.sh --test cli
# Needs: rustup target add x86_64-pc-windows-gnu; on Debian: apt-get install mingw-w64 wine
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-pc-windows-gnu
fail() {
    echo "scripts/windows.sh: $*" >&2
    exit 1
}
for tool in x86_64-w64-mingw32-gcc wine; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing; on Debian: apt-get install mingw-w64 wine"
done
[ -d "$(rustc --print target-libdir --target "$target")" ] || fail "run: rustup target add $target"

folder=${CARGO_TARGET_DIR:-target}/targets
mkdir -p "$folder"
# A prefix of its own, so that nothing of the user's is touched; what Wine says about itself is not of interest here.
export WINEPREFIX=${WINEPREFIX:-$(realpath "$folder")/wine} WINEDEBUG=${WINEDEBUG:--all} WINEARCH=win64
[ -d "$WINEPREFIX" ] || DISPLAY='' wine wineboot --init >/dev/null 2>&1 || fail "wineboot failed; see WINEDEBUG=+all"
# Wine before 9 has no bcryptprimitives.dll, from which Rust's standard library takes randomness: one function.
random=$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll
if [ ! -e "$random" ]; then
    printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
        '__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T len) { return RtlGenRandom(to, (ULONG)len); }' |
        x86_64-w64-mingw32-gcc -shared -x c -o "$random" - -ladvapi32
fi
# Tests leave out what Wine itself does wrong; docs/platforms.md says what that is.
export FLYLOFT_UNDER_WINE=1
export CARGO_TARGET_DIR=$folder CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=wine
cargo test --locked --target "$target" "$@"
