#!/usr/bin/env bash
# Counts the instructions of a cold 4 KiB load through the whole runtime, and names the largest costs.
#   scripts/callgrind.sh [TOP]      the TOP largest functions, default 5, each with its instructions per load
# Two runs of the same program differ in the number of loads only; what one load costs is the difference of their
# counts, so that starting and stopping drop out. All threads count; what the kernel does does not. Waiting adds a
# little that differs from run to run.
# Needs: cargo, valgrind, nm, python3.
set -euo pipefail
cd "$(dirname "$0")/.."
top=${1:-5}
few=2000
many=10000
command -v valgrind >/dev/null || { echo "callgrind.sh: valgrind is not installed" >&2; exit 2; }
program=$(cargo bench --bench reads --no-run --message-format=json 2>/dev/null </dev/null |
  sed -n 's/.*"name":"reads".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "callgrind.sh: the bench 'reads' does not build" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" make "$work/assets.loft" 24000
for loads in $few $many; do
  valgrind --tool=callgrind --callgrind-out-file="$work/$loads" "$program" load "$work/assets.loft" $loads \
    >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
  callgrind_annotate --threshold=100 --auto=no "$work/$loads" >"$work/$loads.txt"
done
nm -n "$program" >"$work/symbols"
python3 - "$work/$few.txt" "$work/$many.txt" "$((many - few))" "$top" "$work/symbols" <<'END'
import bisect, collections, re, sys
symbols = [(int(line.split()[0], 16), line.split()[2]) for line in open(sys.argv[5]) if line[17:19] in ("t ", "T ")]
def named(what):
    # Functions in assembly have no length, which valgrind needs to name them.
    if re.match(r"0x[0-9a-f]{16}$", what):
        place = bisect.bisect(symbols, (int(what, 16), "~"))
        return symbols[place - 1][1] if place else what
    return what
def read(name):
    total, costs = 0, collections.Counter()
    for line in open(name, errors="replace"):
        found = re.match(r"\s*([\d,]+)(?: \(\s*[\d.]+%\))?\s+(\S.*)$", line)
        if not found:
            continue
        cost, what = int(found[1].replace(",", "")), found[2]
        if what.startswith("PROGRAM TOTALS"):
            total = cost
        elif ":" in what:
            # Without the file, the object and the hash of the name.
            what = re.sub(r"\s+\[[^]]*\]$", "", what.split(":", 1)[1])
            costs[named(re.sub(r"::h[0-9a-f]{16}$|'\d+$", "", what))] += cost
    return total, costs
(first, few), (second, many) = read(sys.argv[1]), read(sys.argv[2])
loads, top = int(sys.argv[3]), int(sys.argv[4])
each = (second - first) / loads
print(f"Instructions per cold 4 KiB load, all threads, without the kernel: {each:,.0f}\n")
print("| function (self) | per load | part |\n|---|--:|--:|")
per = {what: (many[what] - few[what]) / loads for what in many}
for what, cost in sorted(per.items(), key=lambda entry: -entry[1])[:top]:
    print(f"| `{what[:110]}` | {cost:,.0f} | {cost / each:.1%} |")
END
