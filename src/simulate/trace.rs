//! A trace in memory: who was asked for, in order, and what each weighs.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::read::{self, Format};
use crate::error::{Error, Result};
use crate::ids::{AssetKind, Hashing};

/// Requests that one trace may hold: 4 bytes each.
pub const REQUESTS_MAX: usize = 1 << 28;
/// A larger object is a column read wrongly.
pub const SIZE_MAX: u64 = 1 << 50;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its name in the trace.
    pub id: u64,
    /// The bytes it weighs: the largest size that the trace gives it, at least 1.
    pub size: u64,
    /// What it is charged to.
    pub kind: AssetKind,
    /// Microseconds that loading it took, where the trace says so; 0 where it does not.
    pub cost_us: f32,
}

/// What was seen while reading that a reader of figures may want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Notes {
    /// Requests with a size of zero: counted as one byte, since a cache holds at least the name.
    pub zero_sizes: u64,
    /// Requests whose size was not the one that their object had before: the largest counts.
    pub resized: u64,
    /// Requests whose time lies before that of one above them, by a little: replayed in the order of the file.
    pub late: u64,
    /// Whether the file ends within a record of a format that says where it ends whole: read up to there.
    pub cut_short: bool,
}

/// Requests in order. Objects are renumbered densely, in the order of their first request.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    name: String,
    requests: Vec<u32>,
    objects: Vec<Object>,
    notes: Notes,
}

impl Trace {
    /// Reads a file of any format known; `None` tells them apart by content. A `.zst` is decompressed, whatever its name.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Trace`] when it is of another kind than said or of none that is
    /// known, truncated, unsorted, or empty: with the line or the byte, and what was expected there.
    pub fn open(file: impl AsRef<Path>, format: Option<Format>) -> Result<Self> {
        let file = file.as_ref();
        let opened = File::open(file).map_err(|error| Error::io("open", file, error))?;
        let name = file.display().to_string();
        Self::from_reader(opened, &name, format)
    }

    /// Reads from any source; `name` stands for it in errors and tables.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn from_reader(source: impl Read, name: &str, format: Option<Format>) -> Result<Self> {
        let mut gathering = Gathering::new(name);
        read::read(source, format, &mut gathering)?;
        gathering.finish()
    }

    /// Where it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who was asked for: places in [`Trace::objects`].
    pub fn requests(&self) -> &[u32] {
        &self.requests
    }

    /// What was asked for.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// What was seen while reading.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// Bytes of all objects together: a budget of this size never evicts.
    pub fn footprint_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// Bytes of all requests together.
    pub fn requested_bytes(&self) -> u64 {
        self.requests.iter().map(|request| self.objects[*request as usize].size).sum()
    }

    /// The part of it that `keep` keeps, objects whole.
    pub(super) fn filtered(&self, keep: impl Fn(&Object) -> bool) -> Self {
        const GONE: u32 = u32::MAX;
        let mut objects = Vec::new();
        let places: Vec<u32> = self
            .objects
            .iter()
            .map(|object| {
                if !keep(object) {
                    return GONE;
                }
                objects.push(*object);
                objects.len() as u32 - 1
            })
            .collect();
        let requests = self.requests.iter().map(|request| places[*request as usize]).filter(|place| *place != GONE);
        Self { name: self.name.clone(), requests: requests.collect(), objects, notes: self.notes }
    }
}

/// A trace that is being made, request by request.
#[derive(Debug)]
pub struct Gathering {
    trace: Trace,
    places: HashMap<u64, u32, Hashing>,
}

impl Gathering {
    /// Nothing yet; `name` stands for it in errors and tables.
    pub fn new(name: &str) -> Self {
        Self { trace: Trace { name: name.to_owned(), ..Trace::default() }, places: HashMap::default() }
    }

    /// The name given.
    pub fn name(&self) -> &str {
        &self.trace.name
    }

    /// Requests so far.
    pub fn len(&self) -> usize {
        self.trace.requests.len()
    }

    /// Whether there is none so far.
    pub fn is_empty(&self) -> bool {
        self.trace.requests.is_empty()
    }

    /// One more request for `id`, which weighs `size` bytes. Why not, otherwise.
    pub fn request(&mut self, id: u64, size: u64) -> Result<(), String> {
        self.request_of(Object { id, size, kind: AssetKind::Other, cost_us: 0.0 })
    }

    /// One more request for `object`. Why not, otherwise.
    pub fn request_of(&mut self, mut object: Object) -> Result<(), String> {
        if self.trace.requests.len() >= REQUESTS_MAX {
            return Err(format!("more than {REQUESTS_MAX} requests; cut the trace into parts"));
        }
        if object.size > SIZE_MAX {
            return Err(format!("a size of {} bytes is beyond {SIZE_MAX}", object.size));
        }
        if object.size == 0 {
            self.trace.notes.zero_sizes += 1;
            object.size = 1;
        }
        let objects = &mut self.trace.objects;
        let place = *self.places.entry(object.id).or_insert_with(|| {
            objects.push(object);
            objects.len() as u32 - 1
        });
        let known = &mut self.trace.objects[place as usize];
        if known.size != object.size {
            self.trace.notes.resized += 1;
            known.size = known.size.max(object.size);
        }
        if object.cost_us > 0.0 {
            // Later loads count more: caches of the system below warm up.
            known.cost_us = if known.cost_us > 0.0 { 0.5 * (known.cost_us + object.cost_us) } else { object.cost_us };
        }
        self.trace.requests.push(place);
        Ok(())
    }

    /// So many requests came a little late.
    pub(super) fn late(&mut self, requests: u64) {
        self.trace.notes.late = requests;
    }

    /// It ended within a record, and what came before is whole.
    pub fn cut_short(&mut self) {
        self.trace.notes.cut_short = true;
    }

    /// The trace.
    ///
    /// # Errors
    /// [`Error::Trace`] when it holds no request.
    pub fn finish(self) -> Result<Trace> {
        if self.trace.requests.is_empty() {
            return Err(Error::trace(self.trace.name, "", "it holds no request"));
        }
        Ok(self.trace)
    }
}
