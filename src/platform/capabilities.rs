//! What this machine offers, what it lacks, and what the lack costs. Nothing here changes what is done (invariant 16).

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::affinity::{self, CpuSet};
use super::cgroup::Limits;
use super::fs::{FileSystem, OsFileSystem};
use super::memory;
use super::pressure::{MemorySource, SystemMemory};
use super::topology::Topology;

/// Lockable memory below this leaves no room to register the buffers of one I/O worker with the kernel.
const MEMLOCK_BYTES_MIN: u64 = 8 << 20;
/// Open files below this are few for a server that streams.
const OPEN_FILES_MIN: u64 = 1024;
/// Watched folders below this are few for a large tree.
const WATCHES_MIN: u64 = 8192;
/// Watchers below this are used up by a few programs of one user.
const INSTANCES_MIN: u64 = 64;
/// Events that wait below this overflow in a large checkout.
const EVENTS_MIN: u64 = 16384;

/// One thing about the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// What: `io_uring`, `memlock`.
    pub name: &'static str,
    /// What it is here, as one line.
    pub value: String,
    /// Whether it is as good as Flyloft can use.
    pub ok: bool,
    /// What the lack costs and what to do about it; empty when `ok`.
    pub cost: String,
}

/// What this machine offers to this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Everything that matters, in the order in which it is shown.
    pub items: Vec<Capability>,
    /// NUMA nodes and processors.
    pub topology: Topology,
}

impl Capabilities {
    /// Looks at this machine now. io_uring is really tried, which takes a few milliseconds.
    pub fn probe() -> Self {
        Self::read(Path::new("/"), &affinity::allowed(), super::io::probe_uring())
    }

    /// [`Capabilities::probe`], and what the file system of `folder` offers to bundles there. Nothing is written: whether
    /// it takes reads past the page cache is tried on a file that is there.
    pub fn probe_with(folder: &Path) -> Self {
        let mut found = Self::probe();
        found.items.push(file_system(&Files { root: Path::new("/") }, folder));
        found
    }

    /// Looks at the files that Linux shows under `root`, and takes the rest as given.
    fn read(root: &Path, allowed: &CpuSet, uring: Result<(), String>) -> Self {
        let topology = Topology::read(&root.join("sys"), allowed);
        let files = Files { root };
        let items = vec![
            system(&files),
            io_uring(uring),
            memlock(&files),
            open_files(&files),
            huge_pages(&files),
            memory_size(&topology),
            container(&Limits::read(root), &topology),
            memory_pressure(root),
            numa(&files, &topology),
            cores(&files, allowed, &topology),
            submission_thread(&topology),
            governor(&files, &topology),
            watching(&files, "inotify.watches", "max_user_watches", WATCHES_MIN),
            watching(&files, "inotify.instances", "max_user_instances", INSTANCES_MIN),
            watching(&files, "inotify.events", "max_queued_events", EVENTS_MIN),
            panic_strategy(),
        ];
        Self { items, topology }
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.items.iter().all(|item| item.ok)
    }

    /// The one named `name`.
    pub fn get(&self, name: &str) -> Option<&Capability> {
        self.items.iter().find(|item| item.name == name)
    }
}

/// One line for each, and another for what it costs.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.items.iter().map(|item| item.name.len()).max().unwrap_or(0);
        for item in &self.items {
            let mark = if item.ok { "ok" } else { "--" };
            writeln!(f, "{mark}  {:width$}  {}", item.name, item.value)?;
            if !item.ok {
                writeln!(f, "    {:width$}  {}", "", item.cost)?;
            }
        }
        Ok(())
    }
}

/// Small files of the kernel's.
struct Files<'a> {
    root: &'a Path,
}

impl Files<'_> {
    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The soft limit of this process; `u64::MAX` when there is none.
    fn limit(&self, name: &str) -> Option<u64> {
        let limits = self.text("proc/self/limits")?;
        let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.to_owned();
        if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
    }
}

fn good(name: &'static str, value: impl Into<String>) -> Capability {
    Capability { name, value: value.into(), ok: true, cost: String::new() }
}

fn poor(name: &'static str, value: impl Into<String>, cost: impl Into<String>) -> Capability {
    Capability { name, value: value.into(), ok: false, cost: cost.into() }
}

fn system(files: &Files<'_>) -> Capability {
    let kernel = files.text("proc/sys/kernel/osrelease").map(|release| format!(", kernel {release}"));
    let value = format!("{} {}{}", std::env::consts::OS, std::env::consts::ARCH, kernel.unwrap_or_default());
    if cfg!(target_os = "linux") {
        good("system", value)
    } else {
        poor("system", value, "the fast read engine, pinning to a node and NUMA placement are Linux's")
    }
}

fn io_uring(tried: Result<(), String>) -> Capability {
    const COST: &str =
        "cold reads go through threads that wait: about ten times the processor time for each, and fewer at once";
    match tried {
        Ok(()) => good("io_uring", "works (tried)"),
        Err(why) => poor("io_uring", why, COST),
    }
}

fn memlock(files: &Files<'_>) -> Capability {
    let cost = format!(
        "buffers cannot be registered with the kernel, which costs processor time for each large read, and tables of \
         contents cannot be locked in memory (tables.lock) beyond it; raise `ulimit -l` to {} KiB",
        MEMLOCK_BYTES_MIN >> 10
    );
    match files.limit("Max locked memory") {
        Some(u64::MAX) => good("memlock", "unlimited"),
        Some(bytes) if bytes >= MEMLOCK_BYTES_MIN => {
            let value = format!("{} KiB; larger tables of contents cannot be locked whole (tables.lock)", bytes >> 10);
            good("memlock", value)
        }
        Some(bytes) => poor("memlock", format!("{} KiB", bytes >> 10), cost),
        None => poor("memlock", "not known", cost),
    }
}

fn open_files(files: &Files<'_>) -> Capability {
    let cost = format!("many clients at once run out of descriptors; raise `ulimit -n` to {OPEN_FILES_MIN} or more");
    match files.limit("Max open files") {
        Some(u64::MAX) => good("open files", "unlimited"),
        Some(limit) if limit >= OPEN_FILES_MIN => good("open files", limit.to_string()),
        Some(limit) => poor("open files", limit.to_string(), cost),
        None => good("open files", "the system does not say"),
    }
}

fn huge_pages(files: &Files<'_>) -> Capability {
    const COST: &str = "large buffers take more page faults and address translation; set it to madvise";
    let mode = files.text("sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = mode.as_deref().and_then(|text| text.split_once('[')?.1.split_once(']')).map(|(chosen, _)| chosen);
    let page = memory::page_size();
    match chosen {
        Some(mode @ ("always" | "madvise")) => good("huge pages", format!("{mode}, beside pages of {page} bytes")),
        Some(mode) => poor("huge pages", format!("{mode}; pages of {page} bytes"), COST),
        None => poor("huge pages", format!("none; pages of {page} bytes"), COST),
    }
}

fn memory_size(topology: &Topology) -> Capability {
    let bytes: u64 = topology.nodes.iter().chain(&topology.memory_only).map(|node| node.memory_bytes).sum();
    good("memory", if bytes == 0 { "not known".to_owned() } else { format!("{} MiB", bytes >> 20) })
}

/// Limits of control groups are honoured, so they cost nothing that the user did not ask for; but they explain figures.
fn container(limits: &Limits, topology: &Topology) -> Capability {
    let cpu = limits.cpu_milli.map(|milli| {
        let threads = limits.parallelism(topology.cpu_count());
        let plural = if threads == 1 { "thread" } else { "threads" };
        format!("{}.{:02} processors ({threads} {plural} to compute)", milli / 1000, milli % 1000 / 10)
    });
    let memory = limits.memory_bytes.map(|bytes| format!("{} MiB of memory", bytes >> 20));
    let said: Vec<String> = cpu.into_iter().chain(memory).collect();
    good("container", if said.is_empty() { "no limits".to_owned() } else { said.join(", ") })
}

/// What tells that memory is short, so that a budget gives way.
fn memory_pressure(root: &Path) -> Capability {
    const COST: &str = "the memory budget cannot give way when memory is short; choose it with room to spare";
    let source = SystemMemory::below(root);
    match source.look() {
        Some(now) => {
            let stalls = format!("something waited for it in {:.0} % of the last 10 s", now.stalled_percent);
            good("pressure", format!("{}: {:.0} % in use, {stalls}", source.name(), now.percent()))
        }
        None => poor("pressure", source.name(), COST),
    }
}

/// A thread of the kernel that takes submissions. It is off unless the configuration asks for it, and that is right here.
fn submission_thread(topology: &Topology) -> Capability {
    let value = match topology.cpu_count() {
        few @ 0..4 => format!("off, and best so: it would take one of {few} processors while reads come"),
        many => format!("off; with {many} processors one may be given to it (io.sqpoll)"),
    };
    good("sqpoll", if cfg!(target_os = "linux") { value } else { "an interface of Linux".to_owned() })
}

fn governor(files: &Files<'_>, topology: &Topology) -> Capability {
    let first = topology.cpus.first().map_or(0, |cpu| cpu.number);
    match files.text(&format!("sys/devices/system/cpu/cpu{first}/cpufreq/scaling_governor")) {
        Some(slow) if slow == "powersave" || slow == "conservative" => {
            let cost =
                "short bursts of reads run at a low clock; `cpupower frequency-set -g performance` where it matters";
            poor("clock", slow, cost)
        }
        Some(other) => good("clock", other),
        None => good("clock", "not ours to set"),
    }
}

/// What holds `folder`, and whether reads past the page cache work there.
fn file_system(files: &Files<'_>, folder: &Path) -> Capability {
    const COST: &str = "bundles larger than memory go through the page cache, which costs a copy of each byte";
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mounts = files.text("proc/self/mountinfo").unwrap_or_default();
    let kind = kind_of_mount(&mounts, &folder).unwrap_or_else(|| "file system not known".to_owned());
    let shown = format!("{kind} at {}", folder.display());
    let sample = std::fs::read_dir(&folder).into_iter().flatten().flatten().find(|entry| {
        // Only an ordinary file is opened; anything else may wait for someone.
        entry.file_type().is_ok_and(|kind| kind.is_file()) && entry.metadata().is_ok_and(|file| file.len() > 0)
    });
    let Some(sample) = sample else {
        return good("folder", format!("{shown}; no file there to try direct reads on"));
    };
    match OsFileSystem.open(&sample.path()) {
        Ok(file) if file.direct().is_some() => good("folder", format!("{shown}; takes direct reads (tried)")),
        Ok(_) => poor("folder", format!("{shown}; refuses direct reads"), COST),
        Err(error) => good("folder", format!("{shown}; cannot be tried: {error}")),
    }
}

/// The kind of file system that the longest mount point above `folder` has, from the lines of /proc/self/mountinfo.
fn kind_of_mount(mounts: &str, folder: &Path) -> Option<String> {
    let parse = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        folder.starts_with(&point).then(|| (point.len(), kind.split(' ').next().unwrap_or_default().to_owned()))
    };
    // Of two on the same point the later one is on top.
    mounts.lines().filter_map(parse).max_by_key(|(len, _)| *len).map(|(_, kind)| kind)
}

fn numa(files: &Files<'_>, topology: &Topology) -> Capability {
    let nodes: Vec<String> = topology
        .nodes
        .iter()
        .map(|node| format!("{}: processors {}", node.number, CpuSet::from_iter(node.cpus.iter().copied())))
        .collect();
    let memory_only = match topology.memory_only.len() {
        0 => String::new(),
        count => format!("; {count} more with memory alone"),
    };
    let plural = if nodes.len() == 1 { "node" } else { "nodes" };
    let value = format!("{} {plural} ({}){memory_only}", nodes.len(), nodes.join("; "));
    if nodes.len() > 1 && files.number("proc/sys/kernel/numa_balancing") == Some(1) {
        let cost = "the kernel moves pages to whoever touched them last, which costs page faults where memory is placed \
                    already; set kernel.numa_balancing to 0 on a machine that does little else";
        return poor("numa", value, cost);
    }
    good("numa", value)
}

fn cores(files: &Files<'_>, allowed: &CpuSet, topology: &Topology) -> Capability {
    let usable = topology.cpu_count();
    if allowed.is_any() {
        let cost = "threads cannot be pinned, so the system may move an I/O worker away from its memory";
        return poor("cores", format!("{usable}; the affinity mask is not known"), cost);
    }
    match files.text("sys/devices/system/cpu/online") {
        Some(online) if online != allowed.to_string() => {
            let cost = "only these are used; a container's or taskset's limit, which is honoured";
            poor("cores", format!("{usable} of those online ({online}): {allowed}"), cost)
        }
        _ => {
            let threads = match topology.core_count() {
                cores if cores < usable => format!(" on {cores} cores"),
                _ => String::new(),
            };
            let unequal = if topology.is_heterogeneous() { ", some slower than others by design" } else { "" };
            good("cores", format!("{usable}{threads}: {allowed}{unequal}"))
        }
    }
}

fn watching(files: &Files<'_>, name: &'static str, key: &str, least: u64) -> Capability {
    match files.number(&format!("proc/sys/fs/inotify/{key}")) {
        Some(limit) if limit >= least => good(name, limit.to_string()),
        Some(limit) => {
            let cost = match key {
                "max_user_watches" => "a tree with more folders than this cannot be watched whole",
                "max_user_instances" => "other programs of this user may leave none to watch with",
                _ => "a large change overflows, and the whole tree is scanned instead of what changed",
            };
            poor(name, limit.to_string(), format!("{cost}; raise fs.inotify.{key} to {least} or more"))
        }
        None if cfg!(target_os = "linux") => poor(name, "not known", "it may not be possible to watch for changes"),
        None => good(name, "not needed on this system"),
    }
}

fn panic_strategy() -> Capability {
    if cfg!(panic = "abort") {
        let cost = "a panic ends the process: supervision cannot restart anything; build with panic = \"unwind\"";
        poor("panics", "abort", cost)
    } else {
        good("panics", "unwind")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::cgroup::tests::machine;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
                          Max open files            256                  4096                 files     \n\
                          Max locked memory         65536                65536                bytes     \n";

    #[test]
    fn what_is_missing_is_named_with_its_cost_and_what_to_do() {
        let root = machine(&[
            ("proc/self/limits", LIMITS),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
            ("proc/sys/fs/inotify/max_user_watches", "100\n"),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("proc/sys/fs/inotify/max_queued_events", "16384\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
        ]);
        let found = Capabilities::read(root.path(), &CpuSet::one(2), Err("not permitted".into()));
        let missing: Vec<_> = found.items.iter().filter(|item| !item.ok).map(|item| item.name).collect();
        let mut expected =
            vec!["io_uring", "memlock", "open files", "huge pages", "pressure", "cores", "inotify.watches"];
        if !cfg!(target_os = "linux") {
            expected.insert(0, "system");
        }
        assert_eq!(missing, expected);
        assert!(found.items.iter().all(|item| item.ok == item.cost.is_empty() && !item.value.contains('\n')));
        let text = found.to_string();
        assert!(text.contains("not permitted") && text.contains("fs.inotify.max_user_watches to 8192"), "{text}");
        let memlock = found.get("memlock").unwrap();
        assert!(memlock.value == "64 KiB" && memlock.cost.contains("tables.lock"), "{memlock:?}");
        assert!(!found.is_complete());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_machine_with_everything_lacks_nothing() {
        let limits = LIMITS.replace("256  ", "unlimited").replace("65536", "unlimited");
        let root = machine(&[
            ("proc/self/limits", &limits),
            ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n"),
            ("proc/sys/kernel/osrelease", "6.18.0\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("proc/sys/fs/inotify/max_user_watches", "100000\n"),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("proc/sys/fs/inotify/max_queued_events", "16384\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
        ]);
        let found = Capabilities::read(root.path(), &CpuSet::from_iter([0, 1]), Ok(()));
        assert!(found.is_complete(), "{found}");
        assert!(found.get("system").unwrap().value.ends_with("kernel 6.18.0"));
        assert_eq!(found.get("numa").unwrap().value, "1 node (0: processors 0-1)");
    }

    #[test]
    fn limits_of_a_container_and_the_folders_file_system_are_told() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("proc/sys/kernel/numa_balancing", "1\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/node1/cpulist", "2-3\n"),
        ]);
        let found = Capabilities::read(root.path(), &(0..4).collect(), Ok(()));
        let value = |name: &str| found.get(name).unwrap().value.as_str();
        assert_eq!(value("container"), "1.50 processors (2 threads to compute), 512 MiB of memory");
        assert!(value("sqpoll").starts_with("off") || !cfg!(target_os = "linux"));
        assert!(!found.get("numa").unwrap().ok && !found.get("clock").unwrap().ok);
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /srv/my\\040assets rw - tmpfs none rw\n";
        assert_eq!(kind_of_mount(mounts, Path::new("/srv/my assets/a")).as_deref(), Some("tmpfs"));
        assert_eq!(kind_of_mount(mounts, Path::new("/srv")).as_deref(), Some("ext4"));
        let folder = tempfile::tempdir().unwrap();
        let of = |folder: &Path| file_system(&Files { root: Path::new("/") }, folder);
        assert!(of(folder.path()).value.ends_with("no file there to try direct reads on"));
        std::fs::write(folder.path().join("a"), [1; 8192]).unwrap();
        assert!(of(folder.path()).value.contains("direct reads"));
    }

    #[test]
    fn this_machine_is_described_as_text_and_as_json() {
        let here = Capabilities::probe();
        assert_eq!(here.get("io_uring").unwrap().ok, crate::platform::io::probe_uring().is_ok());
        let json = serde_json::to_value(&here).unwrap();
        assert_eq!(json["items"].as_array().unwrap().len(), here.items.len());
        assert!(here.to_string().lines().count() >= here.items.len());
    }
}
