//! Format 1 as docs/format.md states it: a golden file that must stay readable, that a writer must still make byte for
//! byte, and that a second reader, written from the document alone, must understand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flyloft::bundle::{
    AssetPut, BuildInput, BuildRecord, BuildStep, Bundle, BundleWriter, Changes, Codec, ContentPut, Decoder,
    EncodedFrame, Params, check_stored,
};
use flyloft::config::Layout;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::{AssetPath, ContentHash, Generation};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/two-generations.loft")
}

fn path(text: &str) -> AssetPath {
    AssetPath::new(text).unwrap()
}

/// `codec` as encoded once: what an encoder makes of the same bytes may change with its version, the format does not.
fn encoded(codec: Codec, decoded: &[u8], stored: &[u8]) -> EncodedFrame {
    let stored_hash = *blake3::hash(stored).as_bytes();
    EncodedFrame { codec, dictionary: 0, decoded_len: decoded.len() as u32, stored: stored.to_vec(), stored_hash }
}

/// "flyloft " 32 times, as a Zstandard frame and as an LZ4 block.
fn repeated() -> Vec<u8> {
    b"flyloft ".repeat(32)
}
const REPEATED_ZSTD: &[u8] =
    &[40, 181, 47, 253, 96, 0, 0, 125, 0, 0, 64, 102, 108, 121, 108, 111, 102, 116, 32, 1, 0, 245, 81, 133, 11];
const REPEATED_LZ4: &[u8] = &[143, 102, 108, 121, 108, 111, 102, 116, 32, 8, 0, 223, 96, 121, 108, 111, 102, 116, 32];

fn put(text: &str, content: ContentPut, dependencies: &[&str]) -> AssetPut {
    let path = path(text);
    let dependencies = dependencies.iter().map(|text| AssetPath::new(text).unwrap()).collect();
    AssetPut { kind: path.kind(), path, executable: false, content, dependencies, build: None }
}

fn new(bytes: &[u8], pieces: Vec<(u32, u32, u32)>) -> ContentPut {
    ContentPut::New { hash: ContentHash::of(bytes), len: bytes.len() as u64, pieces }
}

fn large() -> Vec<u8> {
    (0..12_000u32).map(|at| ((at * at) >> 7) as u8).collect()
}

fn many() -> Vec<String> {
    (0..70).map(|at| format!("parts/{at:02}.bin")).collect()
}

/// What the golden file holds.
fn expected() -> BTreeMap<String, Vec<u8>> {
    let html = repeated();
    [
        ("docs/index.html", html[8..].to_vec()),
        ("docs/later.css", b"later".to_vec()),
        ("empty.txt", vec![]),
        ("large.bin", large()),
        ("scene.gltf", b"scene".to_vec()),
        ("run.sh", html[3..20].to_vec()),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .into()
}

fn write(path: &Path) {
    let (file, _lock) = OsFileSystem.open_writer(path, true).unwrap();
    let mut writer = BundleWriter::create(file, Params::new(Layout::Access)).unwrap();
    assert_eq!(writer.put_dictionary(b"a dictionary that no frame uses".to_vec()).unwrap(), 1);
    writer.put_section(*b"NOTE", Some(b"a section that a reader may skip".to_vec())).unwrap();
    let html = repeated();
    let zstd = writer.put_frame(&encoded(Codec::Zstd, &html, REPEATED_ZSTD)).unwrap();
    let lz4 = writer.put_frame(&encoded(Codec::Lz4, &html, REPEATED_LZ4)).unwrap();
    let scene = writer.put_frame(&EncodedFrame::store(b"scene")).unwrap();
    let large = large();
    let (head, tail) = large.split_at(8000);
    let head = writer.put_frame(&EncodedFrame::store(head)).unwrap();
    let tail = writer.put_frame(&EncodedFrame::store(tail)).unwrap();
    let many_pieces = std::iter::once((head, 0, 8000)).chain((0..10).map(|at| (tail, at * 400, 400)));
    let many = many();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut run = put("run.sh", new(&html[3..20], vec![(lz4, 3, 17)]), &[]);
    run.executable = true;
    run.build = Some(BuildRecord {
        steps: vec![
            BuildStep { transform: "cut".into(), version: 3, parameters: [9; 32] },
            BuildStep { transform: "trim".into(), version: 1, parameters: [0; 32] },
        ],
        source: ContentHash::of(&html),
        inputs: vec![
            BuildInput::Read { path: self::path("cut.toml"), hash: None },
            BuildInput::Read { path: self::path("docs/index.html"), hash: Some(ContentHash::of(&html)) },
            BuildInput::Exists { path: self::path("docs/copy.html"), exists: true },
            BuildInput::Exists { path: self::path("docs/none.html"), exists: false },
            BuildInput::Listed { folder: None, names: ContentHash::of(b"names") },
            BuildInput::Listed { folder: Some(self::path("docs")), names: ContentHash::of(b"more names") },
        ],
        labels: vec!["head".into(), "part/0".into()],
    });
    let first = writer
        .stage(Changes {
            put: vec![
                put("docs/index.html", new(&html, vec![(zstd, 0, 256)]), &["docs/later.css", "large.bin"]),
                put("docs/copy.html", ContentPut::Existing(ContentHash::of(&html)), &["docs/index.html"]),
                put("empty.txt", new(b"", vec![]), &[]),
                put("large.bin", new(&large, many_pieces.collect()), &[]),
                put("scene.gltf", new(b"scene", vec![(scene, 0, 5)]), &many),
                run,
            ],
            put_folders: vec![self::path("hollow/inner")],
            ..Changes::default()
        })
        .unwrap();
    writer.committer().commit(&first).unwrap();
    let later = writer.put_frame(&EncodedFrame::store(b"later")).unwrap();
    let second = writer
        .stage(Changes {
            put: vec![
                put("docs/later.css", new(b"later", vec![(later, 0, 5)]), &[]),
                put("docs/index.html", new(&html[8..], vec![(lz4, 8, 248)]), &["docs/later.css", "docs/copy.html"]),
            ],
            remove: vec![self::path("docs/copy.html").id()],
            remove_folders: vec![self::path("hollow/inner")],
            ..Changes::default()
        })
        .unwrap();
    writer.reserve(Generation(9)).unwrap();
    writer.committer().commit(&second).unwrap();
}

fn load(bundle: &Bundle, hash: &ContentHash) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in bundle.placement(hash, 0..u64::MAX).unwrap().unwrap().pieces {
        let mut stored = vec![0; piece.frame.stored_len as usize];
        bundle.storage().read_exact_at(piece.frame.offset, &mut stored).unwrap();
        check_stored(&piece.frame, &stored, "golden").unwrap();
        let mut decoded = vec![0; piece.frame.decoded_len as usize];
        Decoder::new().decode(&piece.frame, None, &stored, &mut decoded, "golden").unwrap();
        bytes.extend_from_slice(&decoded[piece.from as usize..][..piece.len as usize]);
    }
    bytes
}

#[test]
fn the_golden_file_is_read_as_it_was_written() {
    let bundle = Bundle::open(OsFileSystem.open(&golden()).unwrap(), false).unwrap();
    assert_eq!((bundle.generation(), bundle.info().reserved), (Generation(2), Generation(9)));
    let found: BTreeMap<String, Vec<u8>> = bundle
        .assets()
        .map(|record| record.unwrap())
        .map(|record| (record.path.to_string(), load(&bundle, &record.content)))
        .collect();
    assert_eq!(found, expected());
    let folders: Vec<_> = bundle.folders().map(|folder| folder.unwrap().to_string()).collect();
    assert_eq!(folders, ["docs"]);
    let dependencies: Vec<_> = bundle.dependencies(path("docs/index.html").id()).unwrap();
    let dependencies: Vec<_> = dependencies.iter().map(|to| (to.path.as_str(), to.present)).collect();
    assert_eq!(dependencies, [("docs/copy.html", false), ("docs/later.css", true)]);
    assert_eq!(bundle.dependencies(path("scene.gltf").id()).unwrap().len(), 70);
    let run = bundle.find(&path("run.sh")).unwrap().unwrap();
    assert!(run.executable);
    let built = bundle.build_record(run.id).unwrap().unwrap();
    assert_eq!((built.steps.len(), built.inputs.len(), built.labels), (2, 6, vec!["head".into(), "part/0".into()]));
    assert_eq!(&*bundle.dictionary(1).unwrap(), b"a dictionary that no frame uses");
    assert_eq!(bundle.section(*b"NOTE").unwrap().unwrap(), b"a section that a reader may skip");
    assert_eq!(bundle.verify(&mut |finding| panic!("{finding}")).unwrap().findings, 0);
}

#[test]
fn the_golden_file_is_still_what_a_writer_makes() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.loft");
    write(&made);
    let made = std::fs::read(&made).unwrap();
    if std::env::var_os("FLYLOFT_WRITE_GOLDEN").is_some() {
        std::fs::write(golden(), &made).unwrap();
    }
    assert!(made == std::fs::read(golden()).unwrap(), "the format's bytes changed; docs/format.md says what they are");
}

/// A reader written from docs/format.md, for whoever wonders whether it says enough.
mod second_reader {
    use std::collections::BTreeMap;

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    pub struct Reader {
        file: Vec<u8>,
        trees: BTreeMap<u8, Entries>,
    }

    fn u(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn varint(at: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = at[0];
            *at = &at[1..];
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                return value;
            }
        }
    }

    fn take<'a>(at: &mut &'a [u8], len: u64) -> &'a [u8] {
        let (head, rest) = at.split_at(len as usize);
        *at = rest;
        head
    }

    fn big(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    }

    impl Reader {
        pub fn open(file: Vec<u8>) -> (u64, Self) {
            let slot = |at: usize| {
                let block = &file[at..at + 4096];
                assert_eq!(block[..8], [0x89, 0x4c, 0x4f, 0x46, 0x54, 0x0d, 0x0a, 0x1a]);
                assert_eq!(blake3::hash(&block[..4064]).as_bytes(), &block[4064..]);
                assert_eq!((u(&block[8..10]), u(&block[24..32])), (1, 0));
                (u(&block[48..56]), u(&block[56..64]), block[64..108].to_vec())
            };
            let (a, b) = (slot(0), slot(4096));
            let (generation, _, root) = if (b.0, b.1) > (a.0, a.1) { b } else { a };
            let mut reader = Self { file, trees: BTreeMap::new() };
            let root = reader.fetch(&root).to_vec();
            assert_eq!(&root[..4], b"LRT1");
            let trees = u(&root[56..58]) as usize;
            for tree in root[60..60 + 62 * trees].chunks(62) {
                let mut entries = Entries::new();
                reader.walk(tree[0], tree[1], &tree[2..46], &mut entries);
                assert_eq!(entries.len() as u64, u(&tree[46..54]));
                reader.trees.insert(tree[0], entries);
            }
            (generation, reader)
        }

        fn fetch(&self, at: &[u8]) -> &[u8] {
            let (offset, len) = (u(&at[..8]) as usize, u(&at[8..12]) as usize);
            let bytes = &self.file[offset..offset + len];
            assert_eq!(blake3::hash(bytes).as_bytes(), &at[12..44]);
            bytes
        }

        fn walk(&self, tree: u8, level: u8, at: &[u8], into: &mut Entries) {
            let page = self.fetch(at);
            assert_eq!(page[..2], [tree, level]);
            let fixed = match (level, tree) {
                (1.., _) => Some(44),
                (0, 2 | 11) => Some(4),
                (0, 6..=8) => Some(0),
                (0, 13) => Some(44),
                _ => None,
            };
            let count = u(&page[2..4]) as usize;
            let restarts = if fixed == Some(0) { 0 } else { (count - 1) / 16 };
            let end = page.len() - 2 * restarts;
            let mut rest = &page[4..end];
            let (mut key, mut index): (Vec<u8>, usize) = (Vec::new(), 0);
            while index < count {
                let place = end - rest.len();
                if index > 0 && restarts > 0 && index % 16 == 0 {
                    assert_eq!(u(&page[end + index / 8 - 2..][..2]) as usize, place);
                    assert!(rest[0] < 16);
                }
                let head = take(&mut rest, 1)[0];
                let (mut high, mut low) = (u64::from(head >> 4), u64::from(head & 15));
                if high == 15 {
                    high += varint(&mut rest);
                }
                if low == 15 {
                    low += varint(&mut rest);
                }
                if low == 0 {
                    for _ in 0..=high {
                        let carry = key.iter().rposition(|byte| *byte != 255).unwrap();
                        key[carry] += 1;
                        key[carry + 1..].fill(0);
                        into.push((key.clone(), Vec::new()));
                        index += 1;
                    }
                    continue;
                }
                key.truncate(high as usize);
                key.extend_from_slice(take(&mut rest, low));
                let len = fixed.unwrap_or_else(|| varint(&mut rest));
                let payload = take(&mut rest, len);
                index += 1;
                if level > 0 {
                    self.walk(tree, level - 1, payload, into);
                } else {
                    into.push((key.clone(), payload.to_vec()));
                }
            }
            assert!(rest.is_empty());
        }

        fn value(&self, tree: u8, key: &[u8]) -> &[u8] {
            &self.trees[&tree].iter().find(|(found, _)| found == key).unwrap().1
        }

        pub fn assets(&self) -> BTreeMap<String, Vec<u8>> {
            let mut all = BTreeMap::new();
            for (_, value) in &self.trees[&1] {
                let mut at = &value[..];
                let flags = take(&mut at, 1)[0];
                let folder = varint(&mut at) as u32;
                let len = varint(&mut at);
                let name = std::str::from_utf8(take(&mut at, len)).unwrap();
                let content = take(&mut at, if flags & 16 == 0 { 6 } else { 32 });
                let path = if folder == 0 {
                    name.to_owned()
                } else {
                    let mut row = self.value(10, &folder.to_be_bytes());
                    take(&mut row, 1);
                    varint(&mut row);
                    format!("{}/{name}", std::str::from_utf8(row).unwrap())
                };
                let (hash, row) = self.trees[&3]
                    .iter()
                    .find(|(hash, row)| hash.starts_with(content) && (content.len() == 32 || row[0] & 1 == 0))
                    .unwrap();
                let bytes = self.content(hash, row);
                assert_eq!(blake3::hash(&bytes).as_bytes(), &hash[..]);
                all.insert(path, bytes);
            }
            all
        }

        fn content(&self, hash: &[u8], row: &[u8]) -> Vec<u8> {
            let mut at = row;
            let flags = take(&mut at, 1)[0];
            if flags & 2 == 0 {
                varint(&mut at);
            }
            let len = varint(&mut at);
            let mut bytes = Vec::new();
            let count = flags >> 2;
            if count == 9 {
                for (_, value) in self.trees[&4].iter().filter(|(key, _)| key.starts_with(hash)) {
                    let mut at = &value[..];
                    let (frame, from, len) = (varint(&mut at), varint(&mut at), varint(&mut at));
                    self.extent(frame as u32, from, len, &mut bytes);
                }
                return bytes;
            }
            let mut frame = 0i64;
            for index in 0..count {
                let difference = varint(&mut at);
                frame += (difference >> 1) as i64 ^ -((difference & 1) as i64);
                let from = varint(&mut at);
                let len = if index + 1 < count { varint(&mut at) } else { len - bytes.len() as u64 };
                self.extent(frame as u32, from, len, &mut bytes);
            }
            assert!(at.is_empty());
            bytes
        }

        fn extent(&self, frame: u32, from: u64, len: u64, into: &mut Vec<u8>) {
            let mut row = self.value(5, &frame.to_be_bytes());
            let flags = take(&mut row, 1)[0];
            let _users = varint(&mut row);
            let (offset, stored, decoded) = (varint(&mut row), varint(&mut row), varint(&mut row));
            if flags & 4 != 0 {
                varint(&mut row);
            }
            if flags & 8 != 0 {
                varint(&mut row);
            }
            let stored = &self.file[offset as usize..(offset + stored) as usize];
            assert_eq!(blake3::hash(stored).as_bytes(), row);
            let bytes = match flags & 3 {
                0 => stored.to_vec(),
                1 => lz4_flex::block::decompress(stored, decoded as usize).unwrap(),
                _ => zstd::bulk::decompress(stored, decoded as usize).unwrap(),
            };
            assert_eq!(bytes.len() as u64, decoded);
            into.extend_from_slice(&bytes[from as usize..(from + len) as usize]);
        }

        /// Numbers of an asset and of one that depends on it.
        pub fn dependents(&self) -> Vec<(u32, u32)> {
            self.trees[&7].iter().map(|(key, _)| (big(&key[..4]), big(&key[4..]))).collect()
        }
    }
}

#[test]
fn a_reader_written_from_the_document_reads_the_golden_file() {
    let file = std::fs::read(golden()).unwrap();
    let (generation, reader) = second_reader::Reader::open(file);
    assert_eq!(generation, 2);
    assert_eq!(reader.assets(), expected());
    // docs/later.css came in the second generation, so its number follows those of the first.
    assert_eq!(reader.dependents(), [(6, 1)]);
}
