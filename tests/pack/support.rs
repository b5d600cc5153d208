//! A tree in a temporary folder, and what is done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flyloft::build::{BuildOptions, Built, NoProgress, PackReport, TreeBuilder, pack, unpack};
use flyloft::bundle::Bundle;
use flyloft::config::Layout;
use flyloft::platform::clock::SystemClock;
use flyloft::platform::fs::{FileSystem, OsFileSystem};
use flyloft::{AssetPath, Result};

pub struct Tree {
    pub folder: tempfile::TempDir,
}

pub fn path(text: &str) -> AssetPath {
    AssetPath::new(text).unwrap()
}

/// Bytes that do not compress, the same for the same name.
pub fn noise(name: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Text that compresses, of lines that differ.
pub fn text(name: &str, lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{name}: line {line} of many that are much alike\n").into_bytes()).collect()
}

impl Tree {
    pub fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(tree.root()).unwrap();
        tree
    }

    /// A tree with a bit of everything.
    pub fn mixed() -> Self {
        let tree = Self::new();
        tree.write("index.html", b"<html><link rel=stylesheet href=css/site.css><img src='img/logo.png'></html>");
        tree.write("css/site.css", b"body { background: url('../img/logo.png') }");
        tree.write("img/logo.png", &noise("logo", 9_000));
        tree.write("img/wall.png", &noise("wall", 300_001));
        tree.write("img/same.png", &noise("logo", 9_000));
        tree.write("scene/level.xml", b"<level model='hall.obj' music='none.ogg'/>");
        tree.write("scene/hall.obj", b"mtllib hall.mtl\nv 0 0 0\n");
        tree.write("scene/hall.mtl", b"newmtl stone\nmap_Kd ../img/wall.png\n");
        tree.write("big.txt", &text("big", 60_000));
        tree.write("empty.txt", b"");
        tree.write("\u{fc}ml\u{e4}ut.txt", b"not ASCII");
        for number in 0..200 {
            tree.write(&format!("notes/{number:03}.txt"), &text(&format!("note {number}"), number));
        }
        tree.write("run.sh", b"#!/bin/sh\n");
        tree.executable("run.sh");
        fs::create_dir_all(tree.at("hollow/inner")).unwrap();
        tree
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, bytes).unwrap();
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    /// Does nothing where files have no execute bit.
    pub fn executable(&self, path: &str) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        #[cfg(not(unix))]
        assert!(self.at(path).exists());
    }

    pub fn try_pack(&self, name: &str) -> Result<PackReport> {
        self.pack_with(name, BuildOptions::default())
    }

    pub fn pack_with(&self, name: &str, options: BuildOptions) -> Result<PackReport> {
        let clock = Arc::new(SystemClock);
        pack(Arc::new(OsFileSystem), clock, &self.root(), &self.out(name), options, &NoProgress)
    }

    pub fn pack(&self, name: &str) -> PackReport {
        self.try_pack(name).unwrap()
    }

    pub fn bundle(&self, name: &str) -> Bundle {
        open(&self.out(name))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.out(name)).unwrap()
    }

    pub fn unpacked(&self, name: &str) -> PathBuf {
        let into = self.out(&format!("{name}.unpacked"));
        unpack(&OsFileSystem, &self.bundle(name), &into).unwrap();
        into
    }

    /// A builder that serves the tree, with its first scan done.
    pub fn serve(&self) -> (TreeBuilder, Built) {
        let options = BuildOptions { tolerant: true, threads: 2, ..BuildOptions::default() };
        let mut builder = TreeBuilder::open(
            Arc::new(OsFileSystem),
            Arc::new(SystemClock),
            &self.root(),
            &self.out("store.loft"),
            Some(&self.out("stats")),
            options,
        )
        .unwrap();
        let built = builder.scan(&NoProgress).unwrap();
        (builder, built)
    }

    pub fn update(&self, builder: &mut TreeBuilder, paths: &[&str]) -> Built {
        let changed: BTreeSet<PathBuf> = paths.iter().map(|path| self.at(path)).collect();
        builder.update(&changed).unwrap()
    }
}

pub fn open(at: &Path) -> Bundle {
    Bundle::open(OsFileSystem.open(at).unwrap(), true).unwrap()
}

/// Every asset's bytes, read back and checked by unpacking.
pub fn content(bundle: &Bundle, path_text: &str) -> Option<Vec<u8>> {
    let record = bundle.find(&path(path_text)).unwrap()?;
    let placement = bundle.placement(&record.content, 0..u64::MAX).unwrap().unwrap();
    let mut bytes = Vec::new();
    let mut decoder = flyloft::bundle::Decoder::new();
    for piece in placement.pieces {
        let mut stored = vec![0; piece.frame.stored_len as usize];
        bundle.storage().read_exact_at(piece.frame.offset, &mut stored).unwrap();
        flyloft::bundle::check_stored(&piece.frame, &stored, "test").unwrap();
        let mut decoded = vec![0; piece.frame.decoded_len as usize];
        let dictionary = (piece.frame.dictionary != 0).then(|| bundle.dictionary(piece.frame.dictionary).unwrap());
        decoder.decode(&piece.frame, dictionary.as_ref(), &stored, &mut decoded, "test").unwrap();
        bytes.extend_from_slice(&decoded[piece.from as usize..(piece.from + piece.len) as usize]);
    }
    assert_eq!(flyloft::ContentHash::of(&bytes), record.content, "{path_text}");
    Some(bytes)
}

/// What a folder holds: bytes and execute bit of files, `None` for folders.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, bool)>> {
    fn walk(top: &Path, at: &Path, into: &mut BTreeMap<PathBuf, Option<(Vec<u8>, bool)>>) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap().path();
            let inside = entry.strip_prefix(top).unwrap().to_owned();
            let stat = OsFileSystem.stat(&entry, true).unwrap();
            if entry.is_dir() {
                into.insert(inside, None);
                walk(top, &entry, into);
            } else {
                into.insert(inside, Some((fs::read(&entry).unwrap(), stat.executable)));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

pub fn dependencies(bundle: &Bundle, of: &str) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = bundle
        .dependencies(path(of).id())
        .unwrap()
        .into_iter()
        .map(|dependency| (dependency.path.to_string(), dependency.present))
        .collect();
    found.sort();
    found
}

pub fn dense() -> BuildOptions {
    BuildOptions { layout: Layout::Dense, ..BuildOptions::default() }
}
