//! The tables against each other: what one says, the others must not deny.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::Reporter;
use super::contents::each;
use crate::bundle::places::PLACES_TAG;
use crate::bundle::reader::{Bundle, Inner};
use crate::bundle::records::{AssetRow, ContentRow, FolderRow, key};
use crate::bundle::tree;
use crate::error::Result;
use crate::ids::{AssetId, AssetPath, ContentHash};

pub(super) fn check(bundle: &Bundle, reporter: &mut Reporter<'_>) -> Result<()> {
    let inner = &*bundle.inner;
    let mut totals = Totals::default();
    let numbered = |key: &[u8], value: &[u8]| Some((key::tail(key)?, AssetRow::decode(value)?));
    each(inner, &tree::ASSETS, numbered, reporter, |(number, row), reporter| {
        let result = totals.asset(inner, number, &row, reporter);
        reporter.take(result)?;
        Ok(ControlFlow::Continue(()))
    })?;
    totals.edges(inner, reporter)?;
    totals.contents(inner, reporter)?;
    totals.folders(inner, reporter)?;
    let entries = |spec: &'static tree::TreeSpec| inner.tree(spec).root.map_or(0, |root| root.entries);
    let counted = [
        (&tree::IDS, entries(&tree::ASSETS)),
        (&tree::FOLDER_IDS, entries(&tree::FOLDERS)),
        (&tree::WANTED, totals.wishes + totals.wanted.len() as u64),
        (&tree::DEPENDENCIES, totals.spilled),
    ];
    for (spec, expected) in counted {
        if entries(spec) != expected {
            reporter.table(format!("the tree of {} has {} entries, not {expected}", spec.name, entries(spec)));
        }
    }
    for asset in bundle.assets() {
        if reporter.take(asset)?.is_none() {
            break;
        }
    }
    for number in 1..inner.root.counters.next_dictionary {
        let dictionary = bundle.dictionary(number);
        reporter.take(dictionary)?;
    }
    for section in &inner.root.sections {
        let section = bundle.section(section.tag);
        reporter.take(section)?;
    }
    if inner.root.sections.iter().any(|section| section.tag == PLACES_TAG) {
        reporter.take(bundle.places())?;
    }
    let read = |key: &[u8], _: &[u8]| Some((key.get(..8)?.to_vec(), key::tail(key)?));
    each(inner, &tree::FRAME_HASHES, read, reporter, |(hash, number), reporter| {
        let row = inner.frame_row(number);
        if let Some(row) = reporter.take(row)?
            && row.is_none_or(|row| !row.frame.stored_hash.starts_with(&hash))
        {
            reporter.table(format!("frame {number} is listed under a hash that is not its own"));
        }
        Ok(ControlFlow::Continue(()))
    })
}

#[derive(Default)]
struct Totals {
    references: HashMap<ContentHash, u32>,
    members: BTreeMap<u32, u32>,
    /// Numbers of all assets, ascending.
    numbers: Vec<u32>,
    /// Target and source of each dependency.
    edges: Vec<(u32, u32)>,
    wishes: u64,
    wanted: HashMap<u64, ()>,
    spilled: u64,
}

impl Totals {
    fn asset(&mut self, inner: &Inner, number: u32, row: &AssetRow, reporter: &mut Reporter<'_>) -> Result<()> {
        let path = inner.path_of(row.folder, &row.name)?;
        if inner.number(path.id())? != Some(number) {
            reporter.table(format!("the id of '{path}' does not lead to it"));
        }
        let (content, _) = inner.content_named(&row.content)?;
        *self.references.entry(content).or_default() += 1;
        *self.members.entry(row.folder).or_default() += 1;
        let (present, missing) = inner.dependency_lists(number, row)?;
        if row.spilled {
            self.spilled += (present.len() + missing.len()) as u64;
        }
        self.wishes += missing.len() as u64;
        self.numbers.push(number);
        self.edges.extend(present.into_iter().map(|target| (target, number)));
        for id in missing {
            let listed = inner.tree(&tree::WANTED).get(&key::wanted(id, number), |_| Some(()))?;
            let read = |value: &[u8]| AssetPath::new(std::str::from_utf8(value).ok()?).ok();
            let wanted = inner.tree(&tree::WANTED).get(&AssetId(id).0.to_le_bytes(), read)?;
            if listed.is_none() || wanted.is_none_or(|wanted| wanted.id() != AssetId(id)) {
                reporter.table(format!("'{path}' asks for a path that is not listed as wanted"));
            }
            if inner.number(AssetId(id))?.is_some() {
                reporter.table(format!("'{path}' asks for a path as missing that is there"));
            }
            self.wanted.insert(id, ());
        }
        if row.build {
            inner.build_record(number)?;
        }
        Ok(())
    }

    /// What the assets say they depend on, against the table of who depends on what.
    fn edges(&mut self, inner: &Inner, reporter: &mut Reporter<'_>) -> Result<()> {
        let mut edges = std::mem::take(&mut self.edges);
        edges.sort_unstable();
        let mut said = edges.iter().peekable();
        let read = |key: &[u8], _: &[u8]| Some((key::head(key)?, key::tail(key)?)).filter(|_| key.len() == 8);
        each(inner, &tree::DEPENDENTS, read, reporter, |edge, reporter| {
            while let Some((target, source)) = said.next_if(|said| **said < edge) {
                reporter.table(format!("asset {source} depends on asset {target}, which does not know"));
            }
            if said.next_if(|said| **said == edge).is_none() {
                let (target, source) = edge;
                reporter.table(format!("asset {target} lists asset {source} as a dependent, which is none"));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (target, source) in said {
            reporter.table(format!("asset {source} depends on asset {target}, which does not know"));
        }
        let mut last = None;
        for (target, source) in &edges {
            if last.replace(target) != Some(target) && self.numbers.binary_search(target).is_err() {
                reporter.table(format!("asset {source} depends on asset {target}, which is not there"));
            }
        }
        Ok(())
    }

    fn contents(&mut self, inner: &Inner, reporter: &mut Reporter<'_>) -> Result<()> {
        let read = |key: &[u8], value: &[u8]| Some((ContentHash(key.try_into().ok()?), ContentRow::decode(value)?));
        let mut bytes = 0u64;
        each(inner, &tree::CONTENTS, read, reporter, |(hash, row), reporter| {
            bytes = bytes.saturating_add(row.len);
            let references = self.references.get(&hash).copied().unwrap_or(0);
            if references != row.references {
                let says = row.references;
                reporter.table(format!("content {hash} has {references} references, its record says {says}"));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if bytes != inner.root.counters.content_bytes {
            let says = inner.root.counters.content_bytes;
            reporter.table(format!("contents have {bytes} bytes, the root page says {says}"));
        }
        Ok(())
    }

    fn folders(&mut self, inner: &Inner, reporter: &mut Reporter<'_>) -> Result<()> {
        let read = |key: &[u8], value: &[u8]| Some((key::tail(key)?, FolderRow::decode(value)?));
        let mut rows = BTreeMap::new();
        each(inner, &tree::FOLDERS, read, reporter, |(number, row), _| {
            rows.insert(number, row);
            Ok(ControlFlow::Continue(()))
        })?;
        let by_path: HashMap<&str, u32> = rows.iter().map(|(number, row)| (row.path.as_str(), *number)).collect();
        for (number, row) in &rows {
            let parent = row.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if !parent.is_empty() {
                match by_path.get(parent) {
                    Some(parent) => *self.members.entry(*parent).or_default() += 1,
                    None => reporter.table(format!("the folder '{}' stands in no folder", row.path)),
                }
            }
            let id = AssetId::of_path(&row.path);
            let named = inner
                .tree(&tree::FOLDER_IDS)
                .get(&key::id(id), |value| Some(u32::from_le_bytes(value.try_into().ok()?)))?;
            if named != Some(*number) {
                reporter.table(format!("the id of the folder '{}' does not lead to it", row.path));
            }
        }
        for (number, row) in &rows {
            let members = self.members.get(number).copied().unwrap_or(0);
            if members != row.members {
                let (path, says) = (&row.path, row.members);
                reporter.table(format!("the folder '{path}' has {members} members, its record says {says}"));
            }
        }
        Ok(())
    }
}
