//! What is done about mapped tables before somebody reads them: put into memory, or locked there, when asked.
//!
//! The tables of a generation lie in few runs, since a commit writes its pages together. They are found by reading the
//! interior pages alone, which name every page below them.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::Bundle;
use super::page::{PageRef, Position};
use super::reader::Inner;
use super::tree::{TREES, TreeSpec, child};
use crate::config::TablesConfig;
use crate::error::Result;
use crate::limits;
use crate::storage::{Advice, Mapped};

/// Two pages that are no farther apart are one run: the system works on whole pages of memory.
const GAP_BYTES_MAX: u64 = 4096;
/// Runs that are kept. Tables that lie in more places are prepared in part.
const RUNS_MAX: usize = 1 << 16;

/// What was done ahead about a generation's tables of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesReport {
    /// Bytes of all its pages; 0 where nothing was asked for, since then they are not counted.
    pub bytes: u64,
    /// Bytes that were put into memory.
    pub populated_bytes: u64,
    /// Bytes that are kept in memory.
    pub locked_bytes: u64,
    /// Why not all of what was asked for was done.
    pub refused: Option<String>,
}

/// A generation's tables with what was done about them. Dropping it unlocks them.
#[derive(Default)]
pub struct PreparedTables {
    report: TablesReport,
    locked: Option<Weak<dyn Mapped>>,
}

impl PreparedTables {
    /// What was done.
    pub fn report(&self) -> &TablesReport {
        &self.report
    }
}

impl Drop for PreparedTables {
    fn drop(&mut self) {
        // A mapping that is gone took its locks along.
        if let Some(map) = self.locked.as_ref().and_then(Weak::upgrade) {
            map.unlock();
        }
    }
}

impl fmt::Debug for PreparedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

impl Bundle {
    /// Does about the tables of this generation what `config` asks for, and returns when it is done: with a cold page
    /// cache that takes as long as reading them. What the system refuses is reported and costs speed alone.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a page on the way is.
    pub fn prepare_tables(&self, config: &TablesConfig) -> Result<PreparedTables> {
        let mut prepared = PreparedTables::default();
        if !config.populate && !config.lock {
            return Ok(prepared);
        }
        let Some(map) = self.inner.view.map() else {
            prepared.report.refused = Some("the bundle is not mapped".to_owned());
            return Ok(prepared);
        };
        let whole = self.inner.view.end <= limits::POPULATE_BYTES_MAX;
        if config.populate && whole {
            // Before the interior pages are read one by one.
            prepared.populate(&**map, std::slice::from_ref(&(0..self.inner.view.end)));
        }
        let (runs, bytes) = self.inner.table_runs()?;
        prepared.report.bytes = bytes;
        if config.populate && !whole {
            prepared.populate(&**map, &runs);
        }
        if config.lock {
            prepared.locked = Some(Arc::downgrade(map));
            prepared.lock(&**map, &runs);
        }
        // What is not in memory is read here and there as before.
        drop(map.advise(0..map.bytes().len(), Advice::Scattered));
        Ok(prepared)
    }
}

impl PreparedTables {
    fn populate(&mut self, map: &dyn Mapped, runs: &[Range<u64>]) {
        for run in runs.iter().filter_map(in_memory) {
            match map.advise(run.clone(), Advice::Populate) {
                Ok(()) => self.report.populated_bytes += run.len() as u64,
                Err(error) => return self.refuse(format!("putting them into memory: {error}")),
            }
        }
    }

    fn lock(&mut self, map: &dyn Mapped, runs: &[Range<u64>]) {
        for run in runs.iter().filter_map(in_memory) {
            // Locking alone would read page by page. A refusal costs that.
            drop(map.advise(run.clone(), Advice::Populate));
            let (locked, outcome) = map.lock(run);
            self.report.locked_bytes += locked as u64;
            if let Err(error) = outcome {
                let TablesReport { locked_bytes, bytes, .. } = self.report;
                let why = "raise the limit on locked memory (ulimit -l)";
                return self.refuse(format!("locking: {error}; {locked_bytes} of {bytes} bytes are locked; {why}"));
            }
        }
    }

    fn refuse(&mut self, why: String) {
        self.report.refused.get_or_insert(why);
    }
}

/// The same range, of memory.
fn in_memory(range: &Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

impl Inner {
    /// Where the pages of this generation's trees lie, in order, and how many bytes they have. The interior pages are
    /// read for it, the leaves are not.
    fn table_runs(&self) -> Result<(Vec<Range<u64>>, u64)> {
        let mut runs = Runs { pages: Vec::new(), bytes: 0 };
        runs.add(&self.at);
        for spec in TREES {
            if let Some(root) = self.tree(spec).root {
                runs.add(&root.page);
                self.add_below(spec, &root.page, root.level, &mut runs)?;
            }
        }
        runs.join();
        Ok((runs.pages, runs.bytes))
    }

    fn add_below(&self, spec: &'static TreeSpec, at: &PageRef, level: u8, runs: &mut Runs) -> Result<()> {
        if level == 0 {
            return Ok(());
        }
        let fault = |fault| self.view.fault(at, fault);
        let page = self.view.page(at)?;
        let mut position = Position::start(&page, spec).map_err(fault)?;
        if position.level != level || usize::from(level) >= limits::TREE_DEPTH_MAX {
            return Err(fault("it stands at another level than its parent says"));
        }
        while let Some(payload) = position.next(&page).map_err(fault)? {
            let below = child(payload).map_err(fault)?;
            runs.add(&below);
            // Pages that share their children would be walked for ever: no tree is larger than its file.
            if runs.bytes > self.view.end {
                return Err(fault("its tree is larger than the file"));
            }
            if level > 1 {
                self.add_below(spec, &below, level - 1, runs)?;
            }
        }
        Ok(())
    }
}

struct Runs {
    pages: Vec<Range<u64>>,
    bytes: u64,
}

impl Runs {
    fn add(&mut self, at: &PageRef) {
        let (start, end) = (at.offset, at.offset.saturating_add(u64::from(at.len)));
        self.bytes = self.bytes.saturating_add(u64::from(at.len).max(1));
        // Pages of a fresh pack follow each other.
        if let Some(last) = self.pages.last_mut()
            && last.end <= start
            && start - last.end <= GAP_BYTES_MAX
        {
            last.end = end;
            return;
        }
        if self.pages.len() >= 2 * RUNS_MAX {
            self.join();
        }
        self.pages.push(start..end);
    }

    /// Puts them in order and joins those that touch; forgets the last ones when there are too many.
    fn join(&mut self) {
        self.pages.sort_unstable_by_key(|run| run.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for run in self.pages.drain(..) {
            match joined.last_mut() {
                Some(last) if run.start <= last.end.saturating_add(GAP_BYTES_MAX) => last.end = last.end.max(run.end),
                _ => joined.push(run),
            }
        }
        joined.truncate(RUNS_MAX);
        self.pages = joined;
    }
}
