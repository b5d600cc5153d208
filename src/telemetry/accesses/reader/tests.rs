//! A trace comes back as it was written, as far as it is whole, and nothing else ever comes of one.

use proptest::prelude::*;

use super::*;
use crate::telemetry::accesses::TraceWriter;

fn traced(access: &Access) -> TracedAsset {
    let id = access.id;
    let path = (!id.0.is_multiple_of(5)).then(|| AssetPath::new(&format!("folder/{}.txt", id.0)).unwrap());
    let (kind, coding) = (AssetKind::ALL[id.0 as usize % 7], Coding::ALL.get(id.0 as usize % 4).copied());
    TracedAsset { id, stored: access.stored, path, bytes: id.0 % 1000, kind, coding }
}

/// The bytes of a trace with a flush after every access that `flush` names.
fn written(accesses: &[Access], flush: impl Fn(usize) -> bool, missed: u64) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), 7).unwrap();
    for (number, access) in accesses.iter().enumerate() {
        writer.access(access, || traced(access)).unwrap();
        if flush(number) {
            writer.flush().unwrap();
        }
    }
    writer.finish(missed).unwrap().0
}

fn read(bytes: &[u8]) -> (Vec<Access>, Option<Error>, Option<TraceEnd>) {
    let mut reader = match TraceReader::new(bytes, "test") {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error), None),
    };
    let (mut found, mut failed) = (Vec::new(), None);
    for access in &mut reader {
        match access {
            Ok(access) => found.push(access),
            Err(error) => failed = Some(error),
        }
    }
    for access in &found {
        let asset = reader.assets().iter().find(|asset| (asset.id, asset.stored) == (access.id, access.stored));
        assert_eq!(asset, Some(&traced(access)));
    }
    (found, failed, reader.end())
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let one = (0u64..40, any::<bool>(), 0u64..5000, 0u64..1 << 48, 0usize..8, 0usize..4, 0usize..3, any::<u32>());
    prop::collection::vec(one, 0..200).prop_map(|all| {
        let mut now = 0;
        let access = |(id, stored, after, weight, level, priority, origin, latency): (_, _, u64, u64, _, _, _, u32)| {
            now += after;
            let level: Level = Level::ALL[level];
            Access {
                id: AssetId(id),
                stored,
                at_us: now,
                weight: if weight % 3 == 0 { id % 1000 } else { weight },
                level,
                priority: Priority::ALL[priority],
                origin: [Origin::User, Origin::Predictor, Origin::System][origin],
                latency_us: if level == Level::Hit { 0 } else { latency },
            }
        };
        all.into_iter().map(access).collect()
    })
}

fn some(count: u64) -> Vec<Access> {
    let access = |number| Access {
        id: AssetId(number * number % 17),
        stored: false,
        at_us: number * 10,
        weight: number * number % 17,
        level: Level::ALL[number as usize % 5],
        priority: Priority::Medium,
        origin: Origin::User,
        latency_us: if number % 5 == 0 { 0 } else { number as u32 },
    };
    (0..count).map(access).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(accesses in accesses(), every in 1usize..50, missed in any::<u32>()) {
        let bytes = written(&accesses, |number| number % every == 0, u64::from(missed));
        let (found, failed, end) = read(&bytes);
        prop_assert!(failed.is_none(), "{failed:?}");
        prop_assert_eq!(end, Some(TraceEnd::Whole { accesses: found.len() as u64, missed: u64::from(missed) }));
        prop_assert_eq!(found, accesses);
    }

    #[test]
    fn a_byte_that_changed_is_found_and_what_stands_before_it_is_still_read(at in 0usize..2000, flip in 1u8..) {
        let accesses = some(100);
        let mut bytes = written(&accesses, |number| number % 10 == 9, 0);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let (found, failed, end) = read(&bytes);
        // A length that grew past the end of the file is one that was cut off.
        prop_assert!(failed.is_some() || matches!(end, Some(TraceEnd::Cut { .. })), "{end:?}");
        prop_assert!(accesses.starts_with(&found));
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), front in 0usize..2) {
        if front == 1 {
            let mut whole = written(&some(3), |_| false, 0);
            whole.truncate(format::FILE_HEADER_BYTES);
            whole.append(&mut bytes);
            bytes = whole;
        }
        let mut count = 0;
        if let Ok(reader) = TraceReader::new(bytes.as_slice(), "test") {
            count = reader.count();
        }
        prop_assert!(count <= bytes.len());
    }
}

#[test]
fn a_trace_that_is_cut_anywhere_is_read_up_to_its_last_whole_block_and_says_so() {
    let accesses = some(60);
    let bytes = written(&accesses, |number| number % 20 == 19, 3);
    let mut most = 0;
    for len in 0..bytes.len() {
        let (found, failed, end) = read(&bytes[..len]);
        assert!(found.len() >= most && accesses.starts_with(&found) && found.len() % 20 == 0);
        most = found.len();
        match end {
            Some(TraceEnd::Cut { at }) => assert!(failed.is_none() && at as usize <= len),
            other => assert!(other.is_none() && len < format::FILE_HEADER_BYTES && failed.is_some(), "{other:?}"),
        }
    }
    let (found, _, end) = read(&bytes);
    assert_eq!((found, end), (accesses, Some(TraceEnd::Whole { accesses: 60, missed: 3 })));
}

#[test]
fn what_is_no_trace_is_refused_by_name() {
    for (bytes, why) in [(&b"time,id,size\n"[..], "does not begin"), (b"FLYTRACE", "cut off"), (b"", "does not begin")]
    {
        let error = TraceReader::new(bytes, "a.csv").err().unwrap().to_string();
        assert!(error.starts_with("a.csv") && error.contains(why), "{error}");
    }
    let mut newer = written(&[], |_| false, 0);
    newer[8] = 2;
    let sum = checksum(&newer[..24], &[]);
    newer[24..32].copy_from_slice(&sum);
    let error = TraceReader::new(newer.as_slice(), "new").err().unwrap().to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn many_accesses_take_few_bytes() {
    let accesses = some(100_000);
    let bytes = written(&accesses, |_| false, 0);
    assert_eq!(read(&bytes).0.len(), accesses.len());
    assert!(bytes.len() < accesses.len() * 8, "{} bytes", bytes.len());
}
