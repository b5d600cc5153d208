//! How much memory there is for this process, and how much of it is in use, by itself and by others: what makes a budget
//! give way before the system takes memory by force.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cgroup;

/// How much memory is in use, of that which this process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryUse {
    /// Bytes in use, by this process and by whoever shares the limit; not the files that the system keeps in memory only
    /// because nobody needs it for something better.
    pub used_bytes: u64,
    /// All of it.
    pub limit_bytes: u64,
    /// The part of the last 10 s in which something waited for memory, in percent, where the system says.
    pub stalled_percent: f32,
}

impl MemoryUse {
    /// The part that is in use, in percent.
    pub fn percent(&self) -> f64 {
        self.used_bytes as f64 * 100.0 / self.limit_bytes.max(1) as f64
    }
}

/// Says how much memory is in use. Asked from time to time, on a thread that may wait for a file of the kernel's.
pub trait MemorySource: Send + Sync {
    /// Who says so: a short text for people.
    fn name(&self) -> String;

    /// How it is now; `None` when it cannot be known at the moment.
    fn look(&self) -> Option<MemoryUse>;
}

/// A source that says what it was told last: the simulated twin of [`SystemMemory`].
///
/// ```
/// use flyloft::platform::pressure::{ManualMemory, MemorySource, MemoryUse};
/// let memory = ManualMemory::default();
/// assert_eq!(memory.look(), None);
/// memory.set(MemoryUse { used_bytes: 3 << 30, limit_bytes: 4 << 30, stalled_percent: 0.0 });
/// assert_eq!(memory.look().map(|now| now.percent()), Some(75.0));
/// ```
#[derive(Default)]
pub struct ManualMemory(parking_lot::Mutex<Option<MemoryUse>>);

impl ManualMemory {
    /// This is how it is from now on.
    pub fn set(&self, now: MemoryUse) {
        *self.0.lock() = Some(now);
    }
}

impl MemorySource for ManualMemory {
    fn name(&self) -> String {
        "simulated memory".to_owned()
    }

    fn look(&self) -> Option<MemoryUse> {
        *self.0.lock()
    }
}

/// What Linux says: of the control groups that this process is in, of version 1 and 2, the one that is fullest; of the
/// machine where none has a limit; and how long anything waited for memory. On other systems it does not know.
pub struct SystemMemory {
    root: PathBuf,
    groups: Vec<cgroup::MemoryGroup>,
}

impl Default for SystemMemory {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl SystemMemory {
    /// As the files under `root` say. Groups are found once: a process that is moved to another one is not followed.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), groups: cgroup::memory_groups(root) }
    }

    /// The group that is fullest, of those with a limit.
    fn fullest(&self) -> Option<(&cgroup::MemoryGroup, MemoryUse)> {
        let known = self.groups.iter().filter_map(|group| {
            let (used_bytes, limit_bytes) = group.look()?;
            Some((group, MemoryUse { used_bytes, limit_bytes, stalled_percent: 0.0 }))
        });
        known.max_by(|(_, one), (_, other)| one.percent().total_cmp(&other.percent()))
    }

    fn machine(&self) -> Option<MemoryUse> {
        let text = fs::read_to_string(self.root.join("proc/meminfo")).ok()?;
        let (limit_bytes, free) = (kibibytes(&text, "MemTotal:")?, kibibytes(&text, "MemAvailable:")?);
        Some(MemoryUse { used_bytes: limit_bytes.saturating_sub(free), limit_bytes, stalled_percent: 0.0 })
    }

    /// Of the group where it says, else of the machine.
    fn stalled_percent(&self) -> f32 {
        let own = self.groups.first().and_then(cgroup::MemoryGroup::stalls);
        let text = own.or_else(|| fs::read_to_string(self.root.join("proc/pressure/memory")).ok());
        text.as_deref().and_then(stalled_percent).unwrap_or(0.0)
    }
}

impl MemorySource for SystemMemory {
    fn name(&self) -> String {
        match (self.fullest(), self.machine()) {
            (Some((group, _)), _) => format!("control group {}", group.path().display()),
            (None, Some(_)) => "the machine's memory".to_owned(),
            (None, None) => "nothing: this system does not say how much memory is in use".to_owned(),
        }
    }

    fn look(&self) -> Option<MemoryUse> {
        let group = self.fullest().map(|(_, now)| now);
        let fullest = group.into_iter().chain(self.machine()).max_by(|a, b| a.percent().total_cmp(&b.percent()))?;
        Some(MemoryUse { stalled_percent: self.stalled_percent(), ..fullest })
    }
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The line `some avg10=1.53 avg60=0.87 ...` of a file of stalls: in that part of the time something waited.
fn stalled_percent(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    value.parse().ok().filter(|percent: &f32| (0.0..=100.0).contains(percent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::cgroup::tests::machine;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const MEMINFO: &str = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 700 kB\n";

    fn check(files: &[(&str, &str)], name: &str, expected: Option<(u64, u64, f32)>) {
        let root = machine(files);
        let source = SystemMemory::below(root.path());
        assert!(source.name().contains(name), "{} is not {name}", source.name());
        let got = source.look().map(|now| (now.used_bytes, now.limit_bytes, now.stalled_percent));
        assert_eq!(got, expected, "{files:?}");
    }

    #[test]
    fn the_fullest_group_counts_without_what_it_only_keeps() {
        let (own, above) = ("sys/fs/cgroup/a/b", "sys/fs/cgroup/a");
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("proc/meminfo", MEMINFO),
            (&format!("{own}/memory.max") as &str, "1000\n"),
            (&format!("{own}/memory.current"), "900\n"),
            (&format!("{own}/memory.stat"), "anon 100\ninactive_file 300\nactive_file 200\n"),
            (&format!("{own}/memory.pressure"), "some avg10=1.50 avg60=0.87 avg300=0.1 total=5\nfull avg10=0\n"),
            (&format!("{above}/memory.max"), "1000\n"),
            (&format!("{above}/memory.high"), "800\n"),
            (&format!("{above}/memory.current"), "700\n"),
            (&format!("{above}/memory.stat"), "inactive_file 100\n"),
        ];
        check(&files, "sys/fs/cgroup/a", Some((600, 800, 1.5)));
    }

    #[test]
    fn version_1_is_read_and_the_machine_stands_in_for_a_group_without_a_limit() {
        let mounts = "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let files = |limit| {
            [
                ("proc/self/cgroup", "4:memory:/job\n"),
                ("proc/self/mountinfo", mounts),
                ("proc/meminfo", MEMINFO),
                ("proc/pressure/memory", "some avg10=12.25 avg60=0 avg300=0 total=1\n"),
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", limit),
                ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "500\n"),
                (
                    "sys/fs/cgroup/memory/job/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 50\n",
                ),
            ]
        };
        check(&files("800\n"), "memory/job", Some((400, 800, 12.25)));
        check(&files("9223372036854771712\n"), "the machine", Some((300 << 10, 1000 << 10, 12.25)));
    }

    #[test]
    fn what_is_missing_or_nonsense_is_not_known() {
        check(&[], "nothing", None);
        check(
            &[("proc/meminfo", "MemTotal: many kB\n"), ("proc/pressure/memory", "some avg10=NaN\n")],
            "nothing",
            None,
        );
        assert_eq!(stalled_percent("some avg10=NaN avg60=1"), None);
        assert_eq!(stalled_percent("some avg10=101 avg60=1"), None);
        assert_eq!(stalled_percent("full avg10=1"), None);
        if cfg!(target_os = "linux") {
            let now = SystemMemory::default().look().unwrap();
            assert!(now.used_bytes > 0 && now.used_bytes <= now.limit_bytes, "{now:?}");
        }
    }
}
