//! `time,id,size`: the text that every tool can write.

use std::io::BufRead;

use super::super::trace::Gathering;
use super::lines;
use super::order::Order;
use crate::error::Result;
use crate::ids::AssetId;

const TIMES: &[&str] = &["time", "timestamp", "ts", "clock_time", "real_time", "#time"];
const IDS: &[&str] = &["id", "object_id", "obj_id", "object", "obj", "key", "path", "url", "block", "lbn"];
const SIZES: &[&str] = &["size", "size_bytes", "object_size", "obj_size", "bytes", "length", "weight"];

/// Where each value stands.
#[derive(Clone, Copy)]
struct Columns {
    separator: char,
    time: Option<usize>,
    id: usize,
    size: Option<usize>,
    count: usize,
}

/// Reads all of it. A column of times may be missing where a header says so, and one of sizes: each counts as one then.
pub(super) fn read(source: &mut dyn BufRead, into: &mut Gathering) -> Result<()> {
    let mut columns: Option<Columns> = None;
    let mut order = Order::default();
    lines::each(source, into, |into, line, number| {
        let Some(columns) = columns else {
            let (found, is_header) = Columns::of(line)?;
            columns = Some(found);
            return if is_header { Ok(()) } else { request(found, &mut order, (line, number), into) };
        };
        request(columns, &mut order, (line, number), into)
    })?;
    order.finish(into)
}

impl Columns {
    /// Of the first line, and whether it is a header.
    fn of(line: &str) -> Result<(Self, bool), String> {
        let separator = [',', ';', '\t'].into_iter().find(|one| line.contains(*one)).unwrap_or(',');
        let fields: Vec<String> = line.split(separator).map(|field| clean(field).to_ascii_lowercase()).collect();
        let count = fields.len();
        // A first line whose time and size are numbers is a request.
        let number = |at: usize| fields.get(at).is_some_and(|field| field.parse::<f64>().is_ok());
        if number(0) && (count < 3 || number(2)) {
            let columns = Self { separator, time: Some(0), id: 1, size: Some(2), count: 3 };
            return Ok((columns, false));
        }
        let place = |names: &[&str]| fields.iter().position(|field| names.contains(&field.as_str()));
        let Some(id) = place(IDS) else {
            return Err(format!(
                "no column of ids; expected 'time,id,size', or a header that names them (as one of {})",
                IDS.join(", ")
            ));
        };
        Ok((Self { separator, time: place(TIMES), id, size: place(SIZES), count }, true))
    }
}

fn clean(field: &str) -> &str {
    field.trim().trim_matches('"')
}

fn request(
    columns: Columns,
    order: &mut Order,
    (line, number): (&str, u64),
    into: &mut Gathering,
) -> Result<(), String> {
    let (mut time, mut id, mut size) = (None, None, None);
    let mut count = 0;
    for (at, field) in line.split(columns.separator).enumerate() {
        count += 1;
        if Some(at) == columns.time {
            time = Some(field);
        } else if at == columns.id {
            id = Some(field);
        } else if Some(at) == columns.size {
            size = Some(field);
        }
    }
    let missing = (columns.time.is_some() && time.is_none()) || (columns.size.is_some() && size.is_none());
    let Some(id) = id.map(clean).filter(|id| !id.is_empty() && !missing) else {
        return Err(format!("expected {} columns with an id, found {count}", columns.count));
    };
    if let Some(time) = time.map(clean) {
        let now: f64 = time.parse().map_err(|_| format!("'{time}' is not a time"))?;
        if !now.is_finite() {
            return Err(format!("'{time}' is not a time"));
        }
        order.see(now, || format!("line {number}"));
    }
    let size = match size.map(clean) {
        None => 1,
        Some(text) => text.parse().map_err(|_| format!("'{text}' is not a size in bytes"))?,
    };
    into.request(id.parse().unwrap_or_else(|_| AssetId::of_path(id).0), size)
}
