//! What eviction costs: nanoseconds for a hit with and without its accounting, and for a victim of each policy.
//!
//! ```sh
//! cargo bench --bench eviction                # 10,000, 100,000 and 1,000,000 residents: under three minutes
//! cargo bench --bench eviction -- 10000       # so many residents alone
//! ```

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use flyloft::bundle::{BundleWriter, Changes, Params};
use flyloft::config::{EvictionConfig, EvictionPolicy, Layout};
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::policy::eviction::{self, Admitted, Eviction, Removal, Seen, Usage, View};
use flyloft::residency::{Asset, Budget, Content, Generations, Name, ResidentTable};
use flyloft::telemetry::Metrics;
use flyloft::{AssetId, AssetKind, AssetPath, ContentHash, Generation, Priority};

mod support;

/// Victims of one measurement, and measurements of one figure.
const BLOCK: usize = 512;
const BLOCKS: usize = 32;
/// Hits between two measurements: they change who goes next, and are not measured.
const HITS: usize = 2048;
/// Victims at once, where it is not one.
const AT_ONCE: usize = 64;
/// Assets that take the places of those that go.
const SPARE: usize = BLOCK * BLOCKS;
const WEIGHT: usize = 16;

fn main() {
    let wanted: Vec<usize> = support::args().iter().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if wanted.is_empty() { vec![10_000, 100_000, 1_000_000] } else { wanted };
    hits();
    println!();
    println!(
        "A victim of each policy, ns: chosen, taken out and replaced by a new one; medians of {BLOCKS} times {BLOCK}, with \
         {HITS} skewed hits between. The array shows an asset at the cost of an index, the table is the runtime's own."
    );
    println!();
    support::head(&[
        "policy",
        "residents",
        "array, one",
        &format!("array, {AT_ONCE} at once, each"),
        "table, one",
        &format!("table, {AT_ONCE} at once, each"),
        "policy's bytes each",
    ]);
    for residents in sizes {
        let resident = Resident::new(residents + SPARE);
        for policy in EvictionPolicy::ALL {
            let make = || eviction::build(&EvictionConfig { policy, ..EvictionConfig::default() });
            let (mut cells, mut each) = (Vec::new(), 0.0);
            for at_once in [1, AT_ONCE] {
                let mut array = Array::new(residents + SPARE);
                let (ns, _) = victims(make(), &mut array, residents, at_once);
                cells.push(ns);
            }
            for at_once in [1, AT_ONCE] {
                let mut table = OfTable(&resident);
                let (ns, bytes) = victims(make(), &mut table, residents, at_once);
                cells.push(ns);
                each = bytes;
            }
            let cells = cells.into_iter().map(|ns| format!("{ns:.0}"));
            let row = [policy.name().to_owned(), support::count(residents as f64)].into_iter();
            support::row(&row.chain(cells).chain([format!("{each:.0}")]).collect::<Vec<_>>());
        }
    }
}

/// What a policy is measured on.
trait Subject: View {
    fn id(&self, number: usize) -> AssetId;
    fn hit(&mut self, number: usize);
    fn advance(&mut self);
}

/// The ns of a victim, and the bytes that the policy uses for each resident asset.
fn victims(mut policy: Box<dyn Eviction>, subject: &mut dyn Subject, residents: usize, at_once: usize) -> (f64, f64) {
    let admitted = |subject: &dyn Subject, number: usize| Admitted {
        id: subject.id(number),
        weight: WEIGHT as u64,
        kind: AssetKind::ALL[number % 3],
        tick: subject.tick(),
        cost_us: 100.0 + (number % 7) as f32,
        priority: Priority::Medium,
        speculative: false,
    };
    for number in 0..residents {
        policy.admitted(&admitted(subject, number));
    }
    let (mut next, mut random, mut times) = (residents, 1u64, Vec::new());
    for _ in 0..BLOCKS {
        for _ in 0..HITS {
            subject.advance();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // About one over the rank, over all that there are.
            let share = (random >> 11) as f64 / (1u64 << 53) as f64;
            let rank = ((share * (residents as f64).ln()).exp() - 1.0) as usize;
            subject.hit(rank.wrapping_mul(7919) % residents);
        }
        let fresh: Vec<Admitted> = (next..next + BLOCK).map(|number| admitted(subject, number)).collect();
        next += BLOCK;
        let mut chosen = Vec::with_capacity(at_once);
        let began = Instant::now();
        for fresh in fresh.chunks(at_once) {
            chosen.clear();
            policy.choose((WEIGHT * fresh.len()) as u64, None, subject.view(), &mut chosen);
            for id in &chosen {
                let last = subject.view().look(*id).map(|seen| seen.usage);
                policy.removed(*id, Removal::Evicted, last);
            }
            fresh.iter().for_each(|asset| policy.admitted(asset));
        }
        times.push(began.elapsed().as_nanos() as f64 / BLOCK as f64);
        black_box(&chosen);
    }
    let report = policy.report();
    (support::median(times), report.memory_bytes as f64 / report.residents as f64)
}

trait AsView {
    fn view(&self) -> &dyn View;
}

impl AsView for dyn Subject + '_ {
    fn view(&self) -> &dyn View {
        self
    }
}

/// Assets whose ids are their places.
struct Array {
    usages: Vec<Usage>,
    tick: u32,
}

impl Array {
    fn new(count: usize) -> Self {
        Self { usages: vec![Usage::new(0); count], tick: 0 }
    }
}

impl View for Array {
    fn look(&self, id: AssetId) -> Option<Seen> {
        let usage = *self.usages.get(id.0 as usize)?;
        let kind = AssetKind::ALL[id.0 as usize % 3];
        Some(Seen { usage, weight: WEIGHT as u64, kind, pinned: false, distance: None })
    }

    fn tick(&self) -> u32 {
        self.tick
    }
}

impl Subject for Array {
    fn id(&self, number: usize) -> AssetId {
        AssetId(number as u64)
    }

    fn hit(&mut self, number: usize) {
        self.usages[number] = self.usages[number].used(self.tick);
    }

    fn advance(&mut self) {
        self.tick += 1;
    }
}

/// A runtime's table with small assets in it.
struct Resident {
    table: ResidentTable,
    ids: Vec<AssetId>,
}

impl Resident {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let file = folder.path().join("empty.loft");
        let (storage, _lock) = OsFileSystem.open_writer(&file, true).expect("the folder can be written to");
        let mut writer = BundleWriter::create(storage, Params::new(Layout::Access)).expect("an empty bundle");
        let generations = Generations::new(writer.stage(Changes::default()).expect("an empty generation"));
        let table = ResidentTable::new(&generations, 1);
        let budget = Budget::new(1 << 40, 0, &BTreeMap::new());
        let ids = (0..count).map(|number| admit(&table, &budget, number)).collect();
        Self { table, ids }
    }
}

fn admit(table: &ResidentTable, budget: &Arc<Budget>, number: usize) -> AssetId {
    let charge = budget.try_charge(AssetKind::ALL[number % 3], WEIGHT as u64).expect("the budget is large");
    let builder = Content::build(WEIGHT, charge).expect("there is memory");
    let bytes: [u8; WEIGHT] = (number as u128).to_le_bytes();
    let fill = |into: &mut [u8]| {
        into.copy_from_slice(&bytes);
        Ok(())
    };
    builder.fill(0, WEIGHT, fill).expect("it is filled once");
    let path = AssetPath::new(&format!("assets/{number}.bin")).expect("a path");
    let name = Name { id: path.id(), kind: AssetKind::ALL[number % 3], executable: false, path };
    let id = name.id;
    let content = builder.finish(ContentHash::of(&bytes)).expect("it is whole");
    drop(table.admit(Asset::new(name, Generation(1), content), None));
    id
}

struct OfTable<'a>(&'a Resident);

impl View for OfTable<'_> {
    fn look(&self, id: AssetId) -> Option<Seen> {
        self.0.table.look(id)
    }

    fn tick(&self) -> u32 {
        self.0.table.tick()
    }
}

impl Subject for OfTable<'_> {
    fn id(&self, number: usize) -> AssetId {
        self.0.ids[number]
    }

    fn hit(&mut self, number: usize) {
        black_box(self.0.table.read(self.0.ids[number], |asset| asset.len()));
    }

    fn advance(&mut self) {
        self.0.table.advance_tick();
    }
}

/// A hit of the table, with what it leaves for a policy and without.
fn hits() {
    const COUNT: usize = 1000;
    const ROUNDS: usize = 201;
    let Resident { table, ids } = Resident::new(COUNT);
    let metrics = Metrics::default();
    println!(
        "A hit, ns, median of {ROUNDS} rounds over {COUNT} assets in turn; the subjects take turns in each round."
    );
    println!();
    support::head(&["a hit that", "ns", "ns more than the first"]);
    type Hit<'a> = (&'static str, Box<dyn Fn(AssetId) + 'a>, bool);
    let subjects: [Hit<'_>; 4] = [
        ("takes a handle and leaves nothing", Box::new(|id| drop(black_box(table.peek(id)))), false),
        ("was used in this tick before", Box::new(|id| drop(black_box(table.get(id)))), false),
        ("leaves its use: one store", Box::new(|id| drop(black_box(table.get(id)))), true),
        (
            "leaves its use and is counted",
            Box::new(|id| {
                drop(black_box(table.get(id)));
                metrics.hits.one();
            }),
            true,
        ),
    ];
    let mut times = vec![Vec::new(); subjects.len()];
    for _ in 0..ROUNDS {
        for ((_, hit, is_new), times) in subjects.iter().zip(&mut times) {
            ids.iter().for_each(|id| drop(table.get(*id)));
            if *is_new {
                table.advance_tick();
            }
            let began = Instant::now();
            ids.iter().for_each(|id| hit(*id));
            times.push(began.elapsed().as_nanos() as f64 / COUNT as f64);
        }
    }
    let medians: Vec<f64> = times.into_iter().map(support::median).collect();
    for ((what, ..), ns) in subjects.iter().zip(&medians) {
        support::row(&[(*what).to_owned(), format!("{ns:.1}"), format!("{:+.1}", ns - medians[0])]);
    }
}
