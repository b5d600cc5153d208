//! Readers of trace files. Every one streams, believes no count that a file states, and says where it stopped and what
//! it expected there.

mod blocks;
mod csv;
mod lines;
mod oracle;
mod order;
mod own;

use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::str::FromStr;

use super::trace::Gathering;
use crate::error::{Error, Result};

/// What a Zstandard frame begins with (RFC 8878).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes that are looked at to tell formats apart.
const HEAD_BYTES: usize = 64 << 10;

/// How a trace file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Flyloft's own, as `--trace` writes it.
    Flyloft,
    /// `time,id,size`, with or without a header that names the columns, in any order then.
    Csv,
    /// libCacheSim's oracleGeneral: records of 24 bytes.
    OracleGeneral,
    /// The ARC paper's: `start count ignored number`, blocks of 512 bytes.
    Arc,
    /// The LIRS paper's: a block's number a line, blocks of 4,096 bytes.
    Lirs,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 5] = [Format::Flyloft, Format::Csv, Format::OracleGeneral, Format::Arc, Format::Lirs];

    /// As `--format` names it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Flyloft => "flyloft",
            Format::Csv => "csv",
            Format::OracleGeneral => "oracle-general",
            Format::Arc => "arc",
            Format::Lirs => "lirs",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|format| format.name() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("'{text}' is no format of traces; known are {}", names.join(", "))
        })
    }
}

/// Reads all of `source` into `into`.
pub(super) fn read(source: impl Read, format: Option<Format>, into: &mut Gathering) -> Result<()> {
    let mut source = source;
    let head = head_of(&mut source, into)?;
    let whole = Cursor::new(head.clone()).chain(source);
    if !head.starts_with(&ZSTD_MAGIC) {
        return plain(whole, head, format, into);
    }
    let mut decoder = zstd::stream::read::Decoder::new(BufReader::new(whole)).map_err(|error| failed(into, error))?;
    let head = head_of(&mut decoder, into)?;
    plain(Cursor::new(head.clone()).chain(decoder), head, format, into)
}

fn plain(whole: impl Read, head: Vec<u8>, format: Option<Format>, into: &mut Gathering) -> Result<()> {
    if head.is_empty() {
        return Err(Error::trace(into.name(), "", "it is empty; expected a trace of accesses"));
    }
    let format = match format {
        Some(format) => format,
        None => detect(&head).ok_or_else(|| unknown(into.name()))?,
    };
    let mut whole = BufReader::with_capacity(256 << 10, whole);
    let whole: &mut dyn BufRead = &mut whole;
    match format {
        Format::Flyloft => own::read(whole, into),
        Format::Csv => csv::read(whole, into),
        Format::OracleGeneral => oracle::read(whole, into),
        Format::Arc => blocks::read_arc(whole, into),
        Format::Lirs => blocks::read_lirs(whole, into),
    }
}

/// The first bytes, fewer only where the source ends.
fn head_of(source: &mut impl Read, into: &Gathering) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    source.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|error| failed(into, error))?;
    Ok(head)
}

fn failed(into: &Gathering, error: std::io::Error) -> Error {
    let place = if into.is_empty() { String::new() } else { format!("after request {}", into.len()) };
    Error::trace(into.name(), &place, format!("cannot be read on: {error}"))
}

fn unknown(name: &str) -> Error {
    let known =
        "Flyloft's own; CSV with time,id,size; libCacheSim's oracleGeneral; ARC's or LIRS's text, each also as .zst";
    Error::trace(name, "", format!("it is no trace of a kind that is known ({known})"))
}

/// Tells formats apart by how a file begins.
fn detect(head: &[u8]) -> Option<Format> {
    if head.starts_with(own::MAGIC) {
        return Some(Format::Flyloft);
    }
    if head.contains(&0) {
        return oracle::looks_like(head).then_some(Format::OracleGeneral);
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a letter.
        Err(error) if head.len() == HEAD_BYTES && error.valid_up_to() + 4 > head.len() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    if line.contains([',', ';', '\t']) {
        return Some(Format::Csv);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let numbers = words.iter().all(|word| word.parse::<u64>().is_ok());
    match words.len() {
        1 if numbers || line == "*" => Some(Format::Lirs),
        4 if numbers => Some(Format::Arc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Trace;
    use super::*;
    use crate::ids::{AssetId, AssetKind, Origin, Priority};
    use crate::telemetry::accesses::{Access, Level, TraceWriter, TracedAsset};

    /// (id, size) of each request.
    fn read_all(bytes: &[u8], format: Option<Format>) -> Result<Vec<(u64, u64)>> {
        let trace = Trace::from_reader(bytes, "t", format)?;
        let object = |place: &u32| trace.objects()[*place as usize];
        Ok(trace.requests().iter().map(|place| (object(place).id, object(place).size)).collect())
    }

    fn refused(bytes: &[u8], format: Option<Format>, said: &[&str]) {
        let error = read_all(bytes, format).expect_err("it is refused").to_string();
        assert!(said.iter().all(|text| error.contains(text)), "{said:?} is not all in: {error}");
        assert!(!error.contains('\n'), "{error}");
    }

    fn oracle(records: &[(u32, u64, u32, i64)]) -> Vec<u8> {
        let record = |(time, id, size, next): &(u32, u64, u32, i64)| {
            [&time.to_le_bytes()[..], &id.to_le_bytes(), &size.to_le_bytes(), &next.to_le_bytes()].concat()
        };
        records.iter().flat_map(record).collect()
    }

    #[test]
    fn every_format_is_known_by_its_content_and_by_its_name() {
        let ab = vec![(1, 10), (2, 20), (1, 10)];
        let check = |bytes: &[u8], format: Format, expected: &[(u64, u64)]| {
            for format in [None, Some(format)] {
                assert_eq!(read_all(bytes, format).unwrap(), expected, "{format:?}");
                let packed = zstd::encode_all(bytes, 1).unwrap();
                assert_eq!(read_all(&packed, format).unwrap(), expected, "{format:?} in zstd");
            }
            assert_eq!(format.name().parse(), Ok(format));
        };
        check(b"0,1,10\n0,2,20\n7,1,10\n", Format::Csv, &ab);
        check(b"time,object_id,size_bytes\r\n0,1,10\r\n\r\n0,2,20\r\n7,1,10", Format::Csv, &ab);
        check(b"# made up\nbytes;ts;key\n10;0.5;1\n20;0.75;2\n10;1;1\n", Format::Csv, &ab);
        check(b"id\tsize\n1\t10\n2\t20\n1\t10\n", Format::Csv, &ab);
        check(&oracle(&[(5, 1, 10, 2), (5, 2, 20, -1), (6, 1, 10, -1)]), Format::OracleGeneral, &ab);
        check(b"7 2 0 1\n8 1 0 2\n", Format::Arc, &[(7, 512), (8, 512), (8, 512)]);
        check(b"3\n*\n4\n3\n", Format::Lirs, &[(3, 4096), (4, 4096), (3, 4096)]);
        assert!("cvs".parse::<Format>().unwrap_err().contains("csv, oracle-general"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        refused(b"", None, &["it is empty"]);
        refused(b"PK\x03\x04 a picture \xff\xfe", None, &["no trace of a kind that is known", "oracleGeneral"]);
        refused(b"hello world\n", None, &["no trace of a kind that is known"]);
        refused(b"0,1,10\n0,2\n", None, &["line 2", "3 columns", "found 2"]);
        refused(b"0,1,10\n0,2,x\n", None, &["line 2", "'x' is not a size"]);
        refused(b"0,1,-3\n", Some(Format::Csv), &["line 1"]);
        refused(b"0,1,10\n", Some(Format::Lirs), &["line 1", "number of a block"]);
        refused(b"9,1,10\n8,1,10\n", None, &["line 2", "9", "8", "sort"]);
        refused(b"time,colour,weight\n1,2,3\n", None, &["line 1", "no column of ids"]);
        refused(b"1 0 0 1\n", None, &["line 1", "no blocks"]);
        refused(b"1 99999999999 0 1\n", None, &["line 1", "blocks"]);
        refused(b"1 2 0\n", Some(Format::Arc), &["line 1", "start count ignored number"]);
        refused(&oracle(&[(5, 1, 10, 2), (4, 2, 20, -1)]), Some(Format::OracleGeneral), &["byte 24", "sort"]);
        let whole = oracle(&[(5, 1, 10, 2), (5, 2, 20, -1)]);
        refused(&whole[..40], Some(Format::OracleGeneral), &["byte 24", "16 of 24 bytes"]);
        refused(b"time,id,size\n", None, &["no request"]);
        refused(&[&b"0,1,10\n0,"[..], &vec![b'1'; 1 << 20]].concat(), None, &["line 2", "longer than"]);
    }

    #[test]
    fn a_log_that_is_a_little_out_of_order_is_read_as_it_stands() {
        let line = |turn: u32| format!("{},{turn},10\n", if turn == 5_000 { 4_998 } else { turn });
        let text: String = (0..10_000).map(line).collect();
        let trace = Trace::from_reader(text.as_bytes(), "t", None).unwrap();
        assert_eq!((trace.requests().len(), trace.notes().late), (10_000, 1));
        let swapped = text.replacen("\n2,", "\n9000,", 1);
        refused(swapped.as_bytes(), None, &["line 4", "the time 3 comes after 9000"]);
    }

    #[test]
    fn what_flyloft_recorded_is_requests_with_kinds_and_costs_and_is_read_as_far_as_it_is_whole() {
        let access = |id: u64, level: Level, at_us: u64, latency_us: u32| Access {
            id: AssetId(id),
            stored: false,
            at_us,
            weight: 10 * id,
            level,
            priority: Priority::Medium,
            origin: Origin::User,
            latency_us,
        };
        let mut writer = TraceWriter::new(Vec::new(), 0).unwrap();
        let rows = [(1, Level::Loaded, 300), (2, Level::Loaded, 500), (1, Level::Hit, 0), (2, Level::PrefetchUsed, 0)];
        for (at, (id, level, latency)) in (0..).zip(rows) {
            let asset = TracedAsset {
                id: AssetId(id),
                stored: false,
                path: None,
                bytes: 10 * id,
                kind: AssetKind::Mesh,
                coding: None,
            };
            writer.access(&access(id, level, at, latency), || asset).unwrap();
        }
        writer.flush().unwrap();
        let (bytes, _) = writer.finish(0).unwrap();
        let trace = Trace::from_reader(&bytes[..], "t", None).unwrap();
        assert_eq!(trace.requests(), [0, 1, 0]);
        let object = trace.objects()[1];
        assert_eq!((object.id, object.size, object.kind, object.cost_us), (2, 20, AssetKind::Mesh, 500.0));
        assert!(!trace.notes().cut_short);
        let cut = Trace::from_reader(&bytes[..bytes.len() - 1], "t", Some(Format::Flyloft)).unwrap();
        assert_eq!((cut.requests().len(), cut.notes().cut_short), (3, true));
        refused(&bytes[..20], None, &["t: ", "cut off"]);
        let changed: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 60)).collect();
        refused(&changed, None, &["t: ", "checksum"]);
    }

    #[test]
    fn a_truncated_zstd_file_is_refused() {
        let text: String = (0..20_000).map(|turn| format!("{turn},{},10\n", turn * 7919 % 5_003)).collect();
        let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        refused(&packed[..packed.len() / 2], None, &["cannot be read on"]);
    }

    #[test]
    fn ids_that_are_no_numbers_are_hashed_and_sizes_settle() {
        let trace = Trace::from_reader(&b"0,a/b.png,10\n1,c,0\n2,a/b.png,12\n"[..], "t", None).unwrap();
        assert_eq!(trace.objects().len(), 2);
        assert_eq!((trace.objects()[0].size, trace.objects()[1].size), (12, 1));
        assert_eq!((trace.notes().zero_sizes, trace.notes().resized), (1, 1));
        assert_eq!(trace.objects()[0].id, AssetId::of_path("a/b.png").0);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            for format in [None, Some(Format::Csv), Some(Format::OracleGeneral), Some(Format::Arc), Some(Format::Lirs)] {
                drop(Trace::from_reader(&bytes[..], "t", format));
            }
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "[0-9a-z*,; .\\n-]{0,200}") {
            for format in [None, Some(Format::Csv), Some(Format::Arc), Some(Format::Lirs)] {
                drop(Trace::from_reader(text.as_bytes(), "t", format));
            }
        }
    }
}
