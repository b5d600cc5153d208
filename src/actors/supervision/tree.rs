//! The whole tree, declared once, as data. ARCHITECTURE.md shows what a test renders from it.

use std::fmt::Write;
use std::time::Duration;

use crate::policy::restart::Intensity;

/// Who else is restarted when a child ends abnormally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Only that child.
    OneForOne,
    /// That child and every one started after it.
    RestForOne,
}

/// When a child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// However it ended.
    Permanent,
    /// Only when it ended abnormally.
    Transient,
}

/// What happens when a supervisor's window, or a child's own, is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The supervisor ends abnormally: its own supervisor decides.
    Escalate,
    /// The child is parked as `Degraded`: serving goes on without it.
    Park,
}

/// Every actor that can be a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Child {
    /// Supervisor of the read path's machinery.
    Storage,
    /// Supervisor of what is resident.
    Serving,
    /// Supervisor of hot reload.
    Reload,
    /// One per NUMA node: owns the conversation with the read engine.
    IoWorker,
    /// Orders and batches reads.
    IoDispatcher,
    /// Checks and decodes frames.
    Decompressor,
    /// The only writer of the resident table.
    CacheManager,
    /// Picks victims.
    Evictor,
    /// Asks ahead.
    Predictor,
    /// Turns change sets into generations.
    Rebuilder,
    /// Turns file system events into change sets.
    FileWatcher,
}

/// One child of a supervisor.
#[derive(Debug)]
pub struct ChildSpec {
    /// Who.
    pub child: Child,
    /// Its name in status, events and spans. Workers of several nodes add their node's number.
    pub name: &'static str,
    /// When it is started again.
    pub restart: Restart,
    /// How long it may take to stop before it is killed.
    pub shutdown: Duration,
    /// What happens when it ends too often.
    pub exhausted: Exhausted,
    /// One per NUMA node rather than one.
    pub per_node: bool,
    /// Its own children, if it is a supervisor.
    pub supervises: Option<&'static SupervisorSpec>,
}

/// One supervisor.
#[derive(Debug)]
pub struct SupervisorSpec {
    /// Its name.
    pub name: &'static str,
    /// Who else is restarted.
    pub strategy: Strategy,
    /// Restarts that are allowed within a period.
    pub intensity: Intensity,
    /// In starting order; stopped in reverse.
    pub children: &'static [ChildSpec],
}

const SHUTDOWN: Duration = Duration::from_secs(2);

const fn worker(child: Child, name: &'static str, exhausted: Exhausted) -> ChildSpec {
    ChildSpec {
        child,
        name,
        restart: Restart::Permanent,
        shutdown: SHUTDOWN,
        exhausted,
        per_node: false,
        supervises: None,
    }
}

const fn intensity(restarts: u32, period_seconds: u64) -> Intensity {
    Intensity { restarts, period: Duration::from_secs(period_seconds) }
}

/// The read path's machinery.
pub const STORAGE: SupervisorSpec = SupervisorSpec {
    name: "storage",
    strategy: Strategy::OneForOne,
    intensity: intensity(10, 10),
    children: &[
        ChildSpec { per_node: true, ..worker(Child::IoWorker, "io_worker", Exhausted::Escalate) },
        worker(Child::IoDispatcher, "io_dispatcher", Exhausted::Escalate),
        worker(Child::Decompressor, "decompressor", Exhausted::Escalate),
    ],
};

/// What is resident.
pub const SERVING: SupervisorSpec = SupervisorSpec {
    name: "serving",
    strategy: Strategy::RestForOne,
    intensity: intensity(10, 10),
    children: &[
        worker(Child::CacheManager, "cache_manager", Exhausted::Escalate),
        worker(Child::Evictor, "evictor", Exhausted::Park),
        worker(Child::Predictor, "predictor", Exhausted::Park),
    ],
};

/// Hot reload. Present only when a source directory is watched.
pub const RELOAD: SupervisorSpec = SupervisorSpec {
    name: "reload",
    strategy: Strategy::RestForOne,
    intensity: intensity(10, 10),
    children: &[
        worker(Child::Rebuilder, "rebuilder", Exhausted::Escalate),
        worker(Child::FileWatcher, "file_watcher", Exhausted::Escalate),
    ],
};

/// The root.
pub const TREE: SupervisorSpec = SupervisorSpec {
    name: "root",
    strategy: Strategy::OneForOne,
    intensity: intensity(3, 60),
    children: &[
        ChildSpec { supervises: Some(&STORAGE), ..worker(Child::Storage, "storage", Exhausted::Escalate) },
        ChildSpec { supervises: Some(&SERVING), ..worker(Child::Serving, "serving", Exhausted::Escalate) },
        ChildSpec {
            restart: Restart::Transient,
            supervises: Some(&RELOAD),
            ..worker(Child::Reload, "reload", Exhausted::Park)
        },
    ],
};

/// The tree as ARCHITECTURE.md shows it.
pub fn render(tree: &SupervisorSpec) -> String {
    let mut text = String::new();
    render_supervisor(tree, 0, "", &mut text);
    text
}

fn render_supervisor(spec: &SupervisorSpec, depth: usize, note: &str, text: &mut String) {
    let strategy = match spec.strategy {
        Strategy::OneForOne => "one_for_one",
        Strategy::RestForOne => "rest_for_one",
    };
    let indent = "  ".repeat(depth);
    let Intensity { restarts, period } = spec.intensity;
    writeln!(text, "{indent}{:<14} {strategy}, {restarts} restarts in {} s{note}", spec.name, period.as_secs())
        .expect("writing to a String cannot fail");
    for child in spec.children {
        let mut note = String::new();
        if child.restart == Restart::Transient {
            note.push_str(", transient");
        }
        if child.exhausted == Exhausted::Park {
            note.push_str(", parked when exhausted");
        }
        match child.supervises {
            Some(inner) => render_supervisor(inner, depth + 1, &note, text),
            None => {
                let node = if child.per_node { "[node]" } else { "" };
                let inner = "  ".repeat(depth + 1);
                let name = format!("{}{node}", child.name);
                writeln!(text, "{inner}{name:<18} stops within {} s{note}", child.shutdown.as_secs())
                    .expect("writing to a String cannot fail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spec: &'static SupervisorSpec, into: &mut Vec<&'static str>) {
        into.push(spec.name);
        for child in spec.children {
            match child.supervises {
                Some(inner) => names(inner, into),
                None => into.push(child.name),
            }
        }
    }

    #[test]
    fn every_name_is_used_once() {
        let mut all = Vec::new();
        names(&TREE, &mut all);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn architecture_md_shows_the_tree_as_it_is() {
        let page = include_str!("../../../ARCHITECTURE.md");
        let tree = render(&TREE);
        assert!(page.contains(&tree), "ARCHITECTURE.md must contain exactly:\n{tree}");
    }
}
