//! The table of hit ratios: who is replayed, what is printed. benches/cache.rs prints it without other caches, and the
//! package in benches/peers with them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flyloft::simulate::{Aim, Limits, Object, Policy, Replay, Synthetic, Trace};

/// A cache that is replayed into.
pub trait Subject {
    /// Whether it was there. If not, it may be from now on.
    fn request(&mut self, place: u32, object: &Object) -> bool;
    /// Bytes held now.
    fn held_bytes(&self) -> u64;
}

/// Makes a [`Subject`] for a budget and about so many objects in it.
pub type Make = fn(budget_bytes: u64, objects: usize) -> Box<dyn Subject>;

const SIZES: [f64; 3] = [0.001, 0.01, 0.1];
const USUAL: &str = "../shared/traces";

/// Object and byte hit ratio, how far the budget was exceeded (1 is not), and nanoseconds per request.
#[derive(Clone, Copy)]
struct Ratios {
    objects: f64,
    bytes: f64,
    most: f64,
    ns: f64,
}

#[derive(Clone)]
enum Who {
    Ours(Policy),
    /// Where it may let objects pass by, as the peers do.
    Refusing(Policy),
    Peer(Make),
    Reached(Aim),
    Bound,
}

struct Wanted {
    traces: Vec<Trace>,
    sizes: Vec<f64>,
    who: Vec<(String, Who)>,
}

/// Replays what the arguments ask for, beside `peers`, and prints it.
pub fn run(peers: &[(&str, Make)]) {
    let wanted = wanted(std::env::args().skip(1).collect(), peers).unwrap_or_else(|error| {
        eprintln!("cache: {error}");
        std::process::exit(2);
    });
    let jobs: Vec<(usize, usize, usize)> = (0..wanted.traces.len())
        .flat_map(|trace| (0..wanted.sizes.len()).map(move |size| (trace, size)))
        .flat_map(|(trace, size)| (0..wanted.who.len()).map(move |who| (trace, size, who)))
        .collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; jobs.len()]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((trace, size, who)) = jobs.get(at) else { return };
                    let ratios = replay(&wanted.traces[*trace], wanted.sizes[*size], &wanted.who[*who].1);
                    results.lock().expect("no replay panicked")[at] = Some(ratios);
                }
            });
        }
    });
    let results: Vec<Ratios> =
        results.into_inner().expect("no replay panicked").into_iter().map(|one| one.expect("each is done")).collect();
    let at =
        |trace: usize, size: usize, who: usize| results[(trace * wanted.sizes.len() + size) * wanted.who.len() + who];
    print(&wanted, at);
}

fn replay(trace: &Trace, size: f64, who: &Who) -> Ratios {
    let budget = ((trace.footprint_bytes() as f64 * size) as u64).max(1);
    match who {
        Who::Ours(policy) | Who::Refusing(policy) => {
            let replay = Replay::new(trace, budget);
            let replay = if matches!(who, Who::Refusing(_)) { replay.refusing() } else { replay };
            let figures = replay.run(*policy);
            let most = figures.peak_bytes as f64 / budget as f64;
            Ratios { objects: figures.hit_ratio(), bytes: figures.byte_hit_ratio(), most, ns: figures.ns_per_request }
        }
        Who::Reached(aim) => {
            let figures = Limits::new(trace).reached(budget, *aim);
            Ratios { objects: figures.hit_ratio(), bytes: figures.byte_hit_ratio(), most: 0.0, ns: 0.0 }
        }
        Who::Bound => {
            let limits = Limits::new(trace);
            let bound = |aim: Aim| limits.bounds(&[budget], aim)[0];
            Ratios { objects: bound(Aim::Objects), bytes: bound(Aim::Bytes), most: 0.0, ns: 0.0 }
        }
        Who::Peer(make) => {
            let objects = (trace.objects().len() as f64 * size) as usize;
            let mut peer = make(budget, objects.max(1));
            let (mut hits, mut hit_bytes, mut most) = (0u64, 0u64, 0u64);
            let began = std::time::Instant::now();
            for place in trace.requests() {
                let object = &trace.objects()[*place as usize];
                if object.size <= budget && peer.request(*place, object) {
                    hits += 1;
                    hit_bytes += object.size;
                }
                most = most.max(peer.held_bytes());
            }
            let ns = began.elapsed().as_nanos() as f64 / trace.requests().len() as f64;
            Ratios {
                objects: hits as f64 / trace.requests().len() as f64,
                bytes: hit_bytes as f64 / trace.requested_bytes() as f64,
                most: most as f64 / budget as f64,
                ns,
            }
        }
    }
}

fn print(wanted: &Wanted, at: impl Fn(usize, usize, usize) -> Ratios) {
    let (traces, sizes) = (wanted.traces.len(), wanted.sizes.len());
    println!("| trace | requests | objects | footprint bytes |\n|---|--:|--:|--:|");
    for trace in &wanted.traces {
        let (requests, objects) = (trace.requests().len(), trace.objects().len());
        println!("| {} | {requests} | {objects} | {} |", name(trace), trace.footprint_bytes());
    }
    for (title, by_bytes) in [("Object hit ratio", false), ("Byte hit ratio", true)] {
        let percent = |ratios: Ratios| 100.0 * if by_bytes { ratios.bytes } else { ratios.objects };
        println!("\n{title}, percent\n");
        print!("| trace | budget |");
        wanted.who.iter().for_each(|(name, _)| print!(" {name} |"));
        println!("\n|---|--:|{}", "--:|".repeat(wanted.who.len()));
        for trace in 0..traces {
            for size in 0..sizes {
                print!("| {} | {} % |", name(&wanted.traces[trace]), 100.0 * wanted.sizes[size]);
                for who in 0..wanted.who.len() {
                    let ratios = at(trace, size, who);
                    let over = if ratios.most > 1.0 { "*" } else { "" };
                    print!(" {:.2}{over} |", percent(ratios));
                }
                println!();
            }
        }
        for size in 0..sizes {
            print!("| **mean** | {} % |", 100.0 * wanted.sizes[size]);
            for who in 0..wanted.who.len() {
                let sum: f64 = (0..traces).map(|trace| percent(at(trace, size, who))).sum();
                print!(" **{:.2}** |", sum / traces as f64);
            }
            println!();
        }
    }
    println!("\nTime per request and the most that was held, as a part of the budget\n");
    println!("| cache | ns, mean over traces and budgets | held at most |\n|---|--:|--:|");
    for (who, (name, _)) in wanted.who.iter().enumerate() {
        let all: Vec<Ratios> = (0..traces)
            .flat_map(|trace| (0..sizes).map(move |size| (trace, size)))
            .map(|(t, s)| at(t, s, who))
            .collect();
        let ns = all.iter().map(|ratios| ratios.ns).sum::<f64>() / all.len() as f64;
        let most = all.iter().map(|ratios| ratios.most).fold(0.0, f64::max);
        if most > 0.0 {
            println!("| {name} | {ns:.0} | {:.1} % |", 100.0 * most);
        }
    }
    println!(
        "\n`*`: it held more than its budget at some time of the replay. \"limit\": an offline schedule with the whole"
    );
    println!(
        "future; \"bound\": what no schedule exceeds (PFOO-L). Peers: one shard; moka's maintenance forced after each request."
    );
}

fn name(trace: &Trace) -> String {
    let file = Path::new(trace.name()).file_name().map_or(trace.name().into(), |name| name.to_string_lossy());
    file.trim_end_matches(".zst").trim_end_matches(".csv").to_owned()
}

fn wanted(args: Vec<String>, known: &[(&str, Make)]) -> Result<Wanted, String> {
    let mut args = args.into_iter();
    let (mut places, mut sizes, mut made_up) = (Vec::<PathBuf>::new(), SIZES.to_vec(), true);
    let mut policies: Vec<Policy> = Policy::ALL.to_vec();
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let mut peers = names.clone();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--sizes" => {
                let percent = |text: &str| text.trim_end_matches('%').parse::<f64>().map(|number| number / 100.0);
                sizes =
                    value()?.split(',').map(percent).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
            }
            "--policies" => {
                let parse = |text: &str| text.parse::<Policy>().map_err(|error| error.to_string());
                policies = value()?.split(',').map(parse).collect::<Result<_, _>>()?;
            }
            "--peers" => {
                let asked = value()?;
                peers = names.iter().copied().filter(|name| asked.split(',').any(|one| name.contains(one))).collect();
            }
            "--no-peers" => peers.clear(),
            "--no-made-up" => made_up = false,
            // What cargo adds to a bench.
            "--bench" => {}
            place if !place.starts_with('-') => places.push(place.into()),
            other => return Err(format!("{other} is not understood")),
        }
    }
    if places.is_empty() {
        places.extend(std::env::var_os("FLYLOFT_TRACES").map(PathBuf::from));
    }
    let usual = Path::new(USUAL);
    if places.is_empty() && usual.is_dir() {
        places.push(usual.to_owned());
    }
    let mut traces = Vec::new();
    for place in places {
        for file in files(&place)? {
            traces.push(Trace::open(file, None).map_err(|error| error.to_string())?);
        }
    }
    if made_up || traces.is_empty() {
        traces.extend(Synthetic::ALL.map(|kind| kind.trace(300_000, 30_000, 1)));
    }
    let ours = policies.iter().map(|policy| (format!("flyloft {policy}"), Who::Ours(*policy)));
    let theirs = known.iter().filter(|(name, _)| peers.contains(name));
    let mut who: Vec<(String, Who)> = ours.collect();
    let adaptive = policies.iter().filter(|policy| **policy == Policy::Adaptive);
    who.extend(adaptive.map(|policy| (format!("flyloft {policy}, may refuse"), Who::Refusing(*policy))));
    who.extend(theirs.map(|(name, make)| ((*name).to_owned(), Who::Peer(*make))));
    who.push(("limit by objects".into(), Who::Reached(Aim::Objects)));
    who.push(("limit by bytes".into(), Who::Reached(Aim::Bytes)));
    who.push(("bound".into(), Who::Bound));
    Ok(Wanted { traces, sizes, who })
}

/// The file, or the files of the folder that are no notes.
fn files(place: &Path) -> Result<Vec<PathBuf>, String> {
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let entries = std::fs::read_dir(place).map_err(|error| format!("{}: {error}", place.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.is_file() && file.extension().is_none_or(|extension| extension != "md"));
    files.sort();
    Ok(files)
}
