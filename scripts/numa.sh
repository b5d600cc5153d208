#!/usr/bin/env bash
# Runs examples/numa.rs on a machine of two NUMA nodes that QEMU makes up: two processors and 512 MiB each.
# Needs: qemu-system-x86_64, cpio, and a kernel with a serial console: KERNEL=/path/to/vmlinuz, or on Debian one that this
# downloads without installing it. On Debian: apt-get install qemu-system-x86 cpio
set -euo pipefail
cd "$(dirname "$0")/.."
fail() {
    echo "scripts/numa.sh: $*" >&2
    exit 1
}
for tool in qemu-system-x86_64 cpio gcc ldd; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing; on Debian: apt-get install qemu-system-x86 cpio gcc"
done
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/numa")
mkdir -p "$folder"

kernel=${KERNEL:-}
if [ -z "$kernel" ]; then
    kernel=$(find "$folder" -name 'vmlinuz-*' | head -n 1)
fi
if [ -z "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^  Depends: //p' | head -n 1)
    [ -n "$package" ] || fail "no kernel; name one: KERNEL=/path/to/vmlinuz scripts/numa.sh"
    (cd "$folder" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x "$package"_*.deb kernel && rm -f "$package"_*.deb)
    kernel=$(find "$folder" -name 'vmlinuz-*' | head -n 1)
fi

cargo build --locked --release --example numa
example=${CARGO_TARGET_DIR:-target}/release/examples/numa

# A system of one program, the libraries that it needs, and a first process that starts it and turns the machine off.
root=$folder/root
rm -rf "$root"
mkdir -p "$root"/{proc,sys,dev,tmp}
cp "$example" "$root/numa"
ldd "$example" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
gcc -O -static -x c -o "$root/init" - <<'C'
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("tmpfs", "/tmp", "tmpfs", 0, 0);
    int status = 1;
    if (fork() == 0) {
        execl("/numa", "numa", (char *)0);
        _exit(127);
    }
    wait(&status);
    printf("numa ended with status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
}
C
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/init.gz"

# Emulated, not virtualised: it works everywhere, and the figures of speed mean nothing here.
timeout 300 qemu-system-x86_64 -accel tcg -cpu max -smp 4,sockets=2 -m 1G \
    -object memory-backend-ram,size=512M,id=m0 -object memory-backend-ram,size=512M,id=m1 \
    -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 -numa dist,src=0,dst=1,val=21 \
    -kernel "$kernel" -initrd "$folder/init.gz" -append "console=ttyS0 panic=-1 quiet" \
    -nographic -nodefaults -serial stdio -no-reboot </dev/null >"$folder/console" || fail "the machine did not end well"
# The firmware clears the screen before the first line.
tr -d '\r' <"$folder/console" | sed 's/\x1b[^a-zA-Z]*[a-zA-Z]//g' | sed -n '/^nodes/,/^numa ended/p' | tee "$folder/output"
grep -q '^numa ended with status 0$' "$folder/output" || fail "the example did not end well"
