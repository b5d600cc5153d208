//! What a container may use: the limits of the control groups that this process is in, of version 1 and 2.
//!
//! Sets of processors need no reading here: the affinity mask has them already.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Limits above this are none: version 1 writes a huge number where there is no limit.
const MEMORY_BYTES_MAX: u64 = 1 << 60;

/// The limits that hold for this process: the lowest on the way up to the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Processor time, in thousandths of one processor; `None` when it is not limited.
    pub cpu_milli: Option<u64>,
    /// Memory; `None` when it is not limited.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Those of this process.
    pub fn detect() -> Self {
        Self::read(Path::new("/"))
    }

    /// Reads the files that Linux shows under `root`. What is missing or malformed there limits nothing.
    pub fn read(root: &Path) -> Self {
        let mut limits = Self::default();
        for_each_group(root, |group, unified, controllers| limits.lower(group, unified, controllers));
        limits
    }

    /// How many of `cpus` processors this process can keep busy: as many as the limit on processor time pays for, a part
    /// counting as a whole one, and at least one.
    pub fn parallelism(&self, cpus: usize) -> usize {
        let paid = self.cpu_milli.map_or(cpus, |milli| usize::try_from(milli.div_ceil(1000)).unwrap_or(cpus));
        paid.min(cpus).max(1)
    }

    /// How much of `memory_bytes` this process may take.
    pub fn memory(&self, memory_bytes: u64) -> u64 {
        self.memory_bytes.map_or(memory_bytes, |limit| limit.min(memory_bytes))
    }

    /// Takes in the limits of one group.
    fn lower(&mut self, group: &Path, is_unified: bool, controllers: &str) {
        let (cpu, memory) = if is_unified { unified(group) } else { split(group, controllers) };
        self.cpu_milli = self.cpu_milli.into_iter().chain(cpu).min();
        self.memory_bytes = self.memory_bytes.into_iter().chain(memory).min();
    }
}

/// Calls `visit` with the folder of each group that this process is in, and of every group above it, whether it is of
/// version 2, and with its controllers where it is not.
fn for_each_group(root: &Path, mut visit: impl FnMut(&Path, bool, &str)) {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
    let mounts: Vec<Mount> = mounts.lines().filter_map(parse_mount).collect();
    for (controllers, path) in groups.lines().filter_map(parse_group) {
        for mount in mounts.iter().filter(|mount| mount.has(controllers)) {
            // Within a container the mount may show a part of the tree alone: then its root is what we are in.
            let within = path.strip_prefix(mount.root).unwrap_or("").trim_start_matches('/');
            let top = root.join(mount.point.trim_start_matches('/'));
            let mut group = if within.split('/').any(|part| part == "..") { top.clone() } else { top.join(within) };
            loop {
                visit(&group, mount.unified, controllers);
                if group == top || !group.pop() {
                    break;
                }
            }
        }
    }
}

/// A group that has a limit on memory, or may get one.
pub(super) struct MemoryGroup {
    path: PathBuf,
    unified: bool,
}

/// The groups that this process is in, the innermost first, that count memory.
pub(super) fn memory_groups(root: &Path) -> Vec<MemoryGroup> {
    let mut groups = Vec::new();
    for_each_group(root, |path, unified, controllers| {
        if unified || controllers.split(',').any(|one| one == "memory") {
            groups.push(MemoryGroup { path: path.to_owned(), unified });
        }
    });
    groups
}

impl MemoryGroup {
    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in use in it, without the files that are only kept in memory, and its limit; `None` where it has none.
    pub(super) fn look(&self) -> Option<(u64, u64)> {
        let number = |name: &str| number(&self.path, name);
        let (limit, used, prefix) = if self.unified {
            // From `high` on the kernel makes the processes wait.
            let limit = number("memory.max").into_iter().chain(number("memory.high")).min()?;
            (limit, number("memory.current")?, "")
        } else {
            let limit = number("memory.limit_in_bytes").filter(|bytes| *bytes < MEMORY_BYTES_MAX)?;
            (limit, number("memory.usage_in_bytes")?, "total_")
        };
        let stat = text(&self.path, "memory.stat").unwrap_or_default();
        let kept = |name: &str| -> u64 {
            let fields = |line: &str| line.strip_prefix(prefix)?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
            stat.lines().find_map(fields).unwrap_or(0)
        };
        Some((used.saturating_sub(kept("inactive_file") + kept("active_file")), limit.max(1)))
    }

    /// What it says of how long anything in it waited for memory.
    pub(super) fn stalls(&self) -> Option<String> {
        text(&self.path, "memory.pressure")
    }
}

/// Memory that this process may use: the machine's, or less where a control group says so; 0 where it is not known.
pub fn usable_memory_bytes() -> u64 {
    Limits::detect().memory(machine_memory_bytes(Path::new("/")).unwrap_or(0))
}

fn machine_memory_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where a hierarchy of groups is shown.
struct Mount<'a> {
    root: &'a str,
    point: String,
    unified: bool,
    options: &'a str,
}

impl Mount<'_> {
    fn has(&self, controllers: &str) -> bool {
        match controllers {
            "" => self.unified,
            some => !self.unified && some.split(',').all(|one| self.options.split(',').any(|option| option == one)),
        }
    }
}

/// A line of /proc/self/cgroup: `4:memory:/path`, or `0::/path` for version 2.
fn parse_group(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    Some((fields.next()?, fields.next()?)).filter(|(controllers, _)| !controllers.starts_with("name="))
}

/// A line of /proc/self/mountinfo: `30 25 0:26 /root /point rw shared:9 - cgroup2 cgroup2 rw,nsdelegate`.
fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (place, kind) = line.split_once(" - ")?;
    let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
    let unified = match kind.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let (root, point) = (place.next()?, place.next()?);
    // The kernel writes a blank in a name as its octal number.
    Some(Mount { root, point: point.replace("\\040", " "), unified, options: kind.nth(1).unwrap_or("") })
}

fn text(group: &Path, name: &str) -> Option<String> {
    let file: PathBuf = group.join(name);
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn number(group: &Path, name: &str) -> Option<u64> {
    text(group, name)?.parse().ok()
}

/// Version 2: `cpu.max` has the time and the period, in microseconds, or `max`.
fn unified(group: &Path) -> (Option<u64>, Option<u64>) {
    let cpu = text(group, "cpu.max").and_then(|text| {
        let (quota, period) = text.split_once(' ')?;
        milli(quota.parse().ok()?, period.parse().ok()?)
    });
    (cpu, number(group, "memory.max"))
}

/// Version 1: each controller has files of its own.
fn split(group: &Path, controllers: &str) -> (Option<u64>, Option<u64>) {
    let has = |name: &str| controllers.split(',').any(|one| one == name);
    let cpu = if has("cpu") {
        // -1 when there is no limit, which is no number here.
        number(group, "cpu.cfs_quota_us").zip(number(group, "cpu.cfs_period_us"))
    } else {
        None
    };
    let memory = if has("memory") { number(group, "memory.limit_in_bytes") } else { None };
    (cpu.and_then(|(quota, period)| milli(quota, period)), memory.filter(|bytes| *bytes < MEMORY_BYTES_MAX))
}

fn milli(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period).filter(|milli| *milli > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The root of a machine that has these files.
    pub fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn check(files: &[(&str, &str)], cpu_milli: Option<u64>, memory_bytes: Option<u64>) {
        let root = machine(files);
        assert_eq!(Limits::read(root.path()), Limits { cpu_milli, memory_bytes }, "{files:?}");
    }

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_holds() {
        let service = "sys/fs/cgroup/system.slice/app.service";
        check(
            &[
                ("proc/self/cgroup", "0::/system.slice/app.service\n"),
                ("proc/self/mountinfo", V2),
                (&format!("{service}/cpu.max"), "max 100000\n"),
                (&format!("{service}/memory.max"), "1073741824\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "4294967296\n"),
            ],
            Some(1500),
            Some(1 << 30),
        );
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root_is_read() {
        let own = [("sys/fs/cgroup/cpu.max", "50000 100000\n"), ("sys/fs/cgroup/memory.max", "max\n")];
        let files = |group| [("proc/self/cgroup", group), ("proc/self/mountinfo", V2), own[0], own[1]];
        check(&files("0::/\n"), Some(500), None);
        check(&files("0::/../../docker/4f2a\n"), Some(500), None);
        let shown = "40 30 0:26 /docker/4f2a /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        check(
            &[("proc/self/cgroup", "0::/docker/4f2a\n"), ("proc/self/mountinfo", shown), own[0], own[1]],
            Some(500),
            None,
        );
    }

    #[test]
    fn version_1_has_its_own_files_and_its_own_way_to_say_no_limit() {
        let groups = "9:name=systemd:/\n4:memory:/job\n2:cpu,cpuacct:/job\n1:cpuset:/\n0::/\n";
        let files = |quota, limit| {
            [
                ("proc/self/cgroup", groups),
                ("proc/self/mountinfo", V1),
                ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", quota),
                ("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", limit),
            ]
        };
        check(&files("250000\n", "536870912\n"), Some(2500), Some(512 << 20));
        check(&files("-1\n", "9223372036854771712\n"), None, None);
    }

    #[test]
    fn what_is_missing_or_malformed_limits_nothing() {
        check(&[], None, None);
        let nonsense = [
            ("proc/self/cgroup", "0::/a\nnonsense\n0:::::\n"),
            ("proc/self/mountinfo", "x - cgroup2\n31 23 0:28 / - cgroup2 c\n31 23 0:28 / /m rw - cgroup2 c rw\n"),
            ("m/a/cpu.max", "0 0\n"),
            ("m/cpu.max", "99999999999999999999 1\n"),
            ("m/memory.max", "-5\n"),
        ];
        check(&nonsense, None, None);
        assert!(Limits::detect().parallelism(4) >= 1);
    }

    #[test]
    fn a_part_of_a_processor_counts_as_one() {
        let with = |cpu_milli| Limits { cpu_milli, memory_bytes: None };
        assert_eq!(with(None).parallelism(8), 8);
        assert_eq!(with(Some(1500)).parallelism(8), 2);
        assert_eq!(with(Some(10)).parallelism(8), 1);
        assert_eq!(with(Some(64_000)).parallelism(8), 8);
        let limits = Limits { cpu_milli: None, memory_bytes: Some(5) };
        assert_eq!((limits.memory(9), limits.memory(3)), (5, 3));
    }
}
