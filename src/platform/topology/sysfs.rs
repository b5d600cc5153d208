//! The forms in which Linux writes processors, memory and caches under `/sys`. What makes no sense is passed over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Cache, CacheKind, NUMBER_MAX};

/// A folder of small files.
pub(super) struct Folder(pub PathBuf);

impl Folder {
    pub(super) fn at(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A set of processors: in the list form under `list`, or as older kernels have it, a mask under `mask`.
    pub(super) fn cpus(&self, list: &str, mask: &str) -> Option<BTreeSet<usize>> {
        self.text(list).map(|text| parse_list(&text)).or_else(|| self.text(mask).map(|text| parse_mask(&text)))
    }

    /// The numbers of the entries that are named `prefix` and a number.
    pub(super) fn numbered(&self, prefix: &str) -> BTreeSet<usize> {
        let Ok(entries) = fs::read_dir(&self.0) else { return BTreeSet::new() };
        let number = |name: &str| name.strip_prefix(prefix)?.parse().ok().filter(|number| *number <= NUMBER_MAX);
        entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect()
    }
}

/// The kernel's list form: `0-3,8,10-11`.
pub(super) fn parse_list(text: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            numbers.extend(from..=to.min(NUMBER_MAX));
        }
    }
    numbers
}

/// The kernel's mask form: words of 32 bits in hexadecimal, the highest first: `00000001,000000f0`.
pub(super) fn parse_mask(text: &str) -> BTreeSet<usize> {
    let words: Vec<u32> = text.trim().split(',').map(|word| u32::from_str_radix(word, 16).unwrap_or(0)).collect();
    let bits = words
        .iter()
        .rev()
        .enumerate()
        .flat_map(|(index, word)| (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 32 + bit));
    bits.take_while(|number| *number <= NUMBER_MAX).collect()
}

/// The line `Node 0 MemTotal:  1234 kB`, in bytes.
pub(super) fn parse_memory(text: &str) -> Option<u64> {
    let (_, value) = text.lines().find_map(|line| line.split_once("MemTotal:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A size with its unit: `32K`, `16384K`, `8M`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Every cache of the processors `usable`, once, with those of them that share it.
pub(super) fn caches(sysfs: &Path, usable: &BTreeSet<usize>) -> Vec<Cache> {
    let mut found: Vec<Cache> = Vec::new();
    for cpu in usable {
        let folder = Folder(sysfs.join(format!("devices/system/cpu/cpu{cpu}/cache")));
        for index in folder.numbered("index") {
            found.extend(cache(&folder.at(&format!("index{index}")), *cpu, usable, &found));
        }
    }
    found.sort_by_key(|cache| (cache.level, cache.kind, cache.cpus.first().copied()));
    found
}

/// The cache that `folder` describes, unless it is among `known` or cannot be understood.
fn cache(folder: &Folder, cpu: usize, usable: &BTreeSet<usize>, known: &[Cache]) -> Option<Cache> {
    let level = folder.number("level")?;
    let kind = match folder.text("type")?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    if known.iter().any(|other| (other.level, other.kind) == (level, kind) && other.cpus.contains(&cpu)) {
        return None;
    }
    let shared = folder.cpus("shared_cpu_list", "shared_cpu_map").unwrap_or_default();
    let mut cpus: BTreeSet<usize> = shared.intersection(usable).copied().collect();
    cpus.insert(cpu);
    Some(Cache {
        level,
        kind,
        bytes: parse_size(&folder.text("size")?)?,
        line_bytes: folder.number("coherency_line_size").unwrap_or(64),
        cpus: cpus.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_masks_and_sizes_are_read_and_nonsense_is_passed_over() {
        let list = |text: &str| parse_list(text).into_iter().collect::<Vec<_>>();
        assert_eq!(list("0-2,7,9-10\n"), [0, 1, 2, 7, 9, 10]);
        assert!(list("3-1,-,x-y,,").is_empty());
        assert_eq!(list("0-99999999999").len(), NUMBER_MAX + 1);
        let mask = |text: &str| parse_mask(text).into_iter().collect::<Vec<_>>();
        assert_eq!(mask("00000001,000000f0"), [4, 5, 6, 7, 32]);
        assert_eq!((mask("3"), mask("zz,"), mask("")), (vec![0, 1], vec![], vec![]));
        assert_eq!(mask(&vec!["ffffffff"; 1000].join(",")).len(), NUMBER_MAX + 1);
        assert_eq!((parse_size("32K"), parse_size("8M"), parse_size("64")), (Some(32 << 10), Some(8 << 20), Some(64)));
        assert_eq!((parse_size("K"), parse_size("8X"), parse_size("99999999999999999999K")), (None, None, None));
        assert_eq!(parse_memory("Node 0 MemTotal:       8 kB\nNode 0 MemFree: 1 kB"), Some(8192));
        assert_eq!(parse_memory("Node 0 MemTotal: many kB"), None);
    }
}
