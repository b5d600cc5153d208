//! Lines of a text, one at a time and none without a bound.

use std::io::BufRead;

use super::super::trace::Gathering;
use crate::error::{Error, Result};

/// A longer line is no line of a trace.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Calls `each` for every line that says something, with `into`, without the line's end, and with its number. What `each` refuses is an
/// error with the line's number.
pub(super) fn each(
    source: &mut dyn BufRead,
    into: &mut Gathering,
    mut each: impl FnMut(&mut Gathering, &str, u64) -> Result<(), String>,
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let refused = |name: &str, why: String| Error::trace(name, format!("line {number}"), why);
        if !next(source, &mut line).map_err(|error| refused(into.name(), format!("cannot be read on: {error}")))? {
            break;
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(refused(into.name(), format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&line).map_err(|_| refused(into.name(), "it is not UTF-8".into()))?.trim();
        if !text.is_empty() && !text.starts_with('#') {
            each(into, text, number).map_err(|why| refused(into.name(), why))?;
        }
    }
    Ok(())
}

/// Appends the next line, its end included, as far as it is not too long. Whether there was one.
fn next(source: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let found = source.fill_buf()?;
        if found.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = memchr::memchr(b'\n', found);
        let taken = end.map_or(found.len(), |end| end + 1);
        line.extend_from_slice(&found[..taken]);
        source.consume(taken);
        if end.is_some() || line.len() > LINE_BYTES_MAX {
            return Ok(true);
        }
    }
}
