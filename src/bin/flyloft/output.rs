//! Standard output: buffered, and quiet about a reader that goes away.

use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// What a command writes. Nothing is certain to be out before [`Output::finish`].
pub struct Output {
    inner: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub fn new() -> Self {
        Self { inner: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    pub fn line(&mut self, line: impl Display) -> Result<()> {
        writeln!(self.inner, "{line}").map_err(failed)
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(failed)
    }

    /// One JSON document, on lines of its own.
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.inner, value).map_err(|error| failed(error.into()))?;
        self.raw(b"\n")
    }

    /// One JSON document on one line.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.inner, value).map_err(|error| failed(error.into()))?;
        self.raw(b"\n")
    }

    /// A JSON document that is written as its rows come: `head` holds the fields before them, `name` is theirs.
    pub fn json_rows<T: Serialize>(
        &mut self,
        head: &impl Serialize,
        name: &str,
        rows: impl Iterator<Item = flyloft::Result<T>>,
    ) -> Result<()> {
        let head = serde_json::to_string(head).map_err(|error| failed(error.into()))?;
        // The head is an object: its fields stay open for the rows.
        self.raw(head.trim_end_matches('}').as_bytes())?;
        let comma = if head == "{}" { "" } else { "," };
        self.raw(format!("{comma}\"{name}\":[").as_bytes())?;
        for (index, row) in rows.enumerate() {
            self.raw(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.inner, &row?).map_err(|error| failed(error.into()))?;
        }
        self.raw(b"\n]}\n")
    }

    /// Everything is out.
    pub fn finish(mut self) -> Result<()> {
        self.inner.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Closed;
    }
    Failure::unusable(format_args!("standard output: cannot write: {error}"))
}
