//! Assets and the dependency graph, both ways. An asset that comes takes over the wish for its path from those that
//! asked for it; one that goes leaves a wish with those that still depend on it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{AssetPut, Changes, ContentPut, Stage};
use crate::bundle::reader::Inner;
use crate::bundle::records::{AssetRow, BUILD_BYTES_MAX, BUILD_CHUNK_BYTES, INLINE_DEPENDENCIES_MAX};
use crate::bundle::records::{encode_build, key};
use crate::bundle::tree;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath};

/// An asset that is not put itself, but whose dependencies came or went.
struct Neighbour {
    row: AssetRow,
    present: BTreeSet<u32>,
    missing: BTreeSet<u64>,
}

/// Who asks for a path that has no asset.
#[derive(Default)]
struct Wish {
    path: Option<AssetPath>,
    add: BTreeSet<u32>,
    remove: BTreeSet<u32>,
}

/// The graph's part of a stage.
struct Graph<'w> {
    base: Option<&'w Inner>,
    /// Assets that go or are put again: their own records are not patched.
    replaced: HashMap<u32, AssetRow>,
    neighbours: BTreeMap<u32, Neighbour>,
    wishes: BTreeMap<u64, Wish>,
    /// Dependencies, target before source, of replaced assets, and of those that are put.
    old_edges: Vec<u64>,
    new_edges: Vec<u64>,
}

impl<'w> Graph<'w> {
    /// The assets that depend on `number` and are not replaced.
    fn dependents(&self, number: u32) -> Result<Vec<u32>> {
        self.sources(&tree::DEPENDENTS, &key::number(number))
    }

    /// The assets that ask for a missing path and are not replaced.
    fn asking(&self, id: u64) -> Result<Vec<u32>> {
        self.sources(&tree::WANTED, &id.to_le_bytes())
    }

    fn sources(&self, spec: &'static tree::TreeSpec, prefix: &[u8]) -> Result<Vec<u32>> {
        let Some(base) = self.base else { return Ok(Vec::new()) };
        let mut sources = base.sources(spec, prefix)?;
        sources.retain(|source| !self.replaced.contains_key(source));
        Ok(sources)
    }

    fn neighbour(&mut self, base: &Inner, number: u32) -> Result<&mut Neighbour> {
        Ok(match self.neighbours.entry(number) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let row = base.row(number)?;
                let (present, missing) = base.dependency_lists(number, &row)?;
                let (present, missing) = (present.into_iter().collect(), missing.into_iter().collect());
                entry.insert(Neighbour { row, present, missing })
            }
        })
    }

    fn wish(&mut self, id: u64, source: u32, path: &AssetPath) {
        let wish = self.wishes.entry(id).or_default();
        wish.remove.remove(&source);
        wish.add.insert(source);
        wish.path.get_or_insert_with(|| path.clone());
    }

    fn unwish(&mut self, id: u64, source: u32) {
        let wish = self.wishes.entry(id).or_default();
        wish.add.remove(&source);
        wish.remove.insert(source);
    }
}

/// An asset to put, with its number.
struct Put {
    number: u32,
    put: AssetPut,
}

/// The assets to put, once they have numbers.
struct Numbered {
    puts: Vec<Put>,
    /// Ids and numbers of those that are new, by id.
    new: Vec<([u8; 8], u32)>,
    /// The ids of all, in order.
    ids: Vec<[u8; 8]>,
}

/// The dependencies of an asset to put: numbers of those that exist, ids of those that do not.
type Lists = (Vec<u32>, Vec<u64>);

impl<'w> Stage<'w> {
    /// Everything about assets, contents and the graph.
    pub(super) fn assets(&mut self, changes: Changes) -> Result<()> {
        let Changes { mut put, remove, put_folders, remove_folders } = changes;
        put.sort_by(|a, b| a.path.cmp(&b.path));
        // Of several with one path the last one counts.
        put.dedup_by(|later, kept| {
            let same = later.path == kept.path;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let mut graph = Graph {
            base: self.base,
            replaced: HashMap::new(),
            neighbours: BTreeMap::new(),
            wishes: BTreeMap::new(),
            old_edges: Vec::new(),
            new_edges: Vec::new(),
        };
        let Numbered { puts, new, ids } = self.number(put, &mut graph)?;
        let removed = self.removed(remove, &ids, &mut graph)?;
        for (number, path) in &removed {
            self.lose(*number, path, &mut graph)?;
        }
        self.forget_replaced(&mut graph)?;
        for (id, number) in &new {
            self.gain(*number, u64::from_le_bytes(*id), &mut graph)?;
        }
        let lists = self.resolve(&puts, &removed, &mut graph)?;
        self.put_edges(&mut graph);
        self.put_rows(puts, lists, &graph)?;
        self.folders_explicit(remove_folders, false)?;
        self.folders_explicit(put_folders, true)?;
        self.finish_graph(graph)
    }

    /// Finds what the assets to put depend on.
    fn resolve(&self, puts: &[Put], removed: &[(u32, AssetPath)], graph: &mut Graph<'w>) -> Result<Vec<Lists>> {
        let by_path: HashMap<&str, u32> = puts.iter().map(|put| (put.put.path.as_str(), put.number)).collect();
        let removed: HashSet<u32> = removed.iter().map(|(number, _)| *number).collect();
        let mut elsewhere: HashMap<&str, Option<u32>> = HashMap::new();
        let mut lists = Vec::with_capacity(puts.len());
        // Neighbouring assets mostly depend on the same ones, named in the same order.
        let (mut before, mut targets): (&[AssetPath], Vec<Option<u32>>) = (&[], Vec::new());
        for Put { number, put } in puts {
            let (mut present, mut missing) = (Vec::with_capacity(put.dependencies.len()), Vec::new());
            let mut found = Vec::with_capacity(put.dependencies.len());
            for (index, path) in put.dependencies.iter().enumerate() {
                let text = path.as_str();
                let target = if before.get(index) == Some(path) {
                    targets[index]
                } else if let Some(target) = by_path.get(text) {
                    Some(*target)
                } else if let Some(base) = self.base {
                    match elsewhere.get(text) {
                        Some(known) => *known,
                        None => {
                            let target = self.existing(base, path)?.filter(|target| !removed.contains(target));
                            elsewhere.insert(text, target);
                            target
                        }
                    }
                } else {
                    None
                };
                found.push(target);
                match target {
                    Some(target) => {
                        present.push(target);
                        graph.new_edges.push(u64::from(target) << 32 | u64::from(*number));
                    }
                    None => {
                        missing.push(path.id().0);
                        graph.wish(path.id().0, *number, path);
                    }
                }
            }
            (before, targets) = (&put.dependencies, found);
            present.sort_unstable();
            present.dedup();
            missing.sort_unstable();
            missing.dedup();
            lists.push((present, missing));
        }
        Ok(lists)
    }

    /// Writes who depends on whom, of replaced assets and those that are put. An edge that stays is left alone, so
    /// that its page is.
    fn put_edges(&mut self, graph: &mut Graph<'w>) {
        let (mut old, mut new) = (std::mem::take(&mut graph.old_edges), std::mem::take(&mut graph.new_edges));
        old.sort_unstable();
        new.sort_unstable();
        new.dedup();
        let batch = self.batch(&tree::DEPENDENTS);
        let mut old = old.into_iter().peekable();
        for edge in new {
            while let Some(gone) = old.next_if(|old| *old < edge) {
                batch.delete(&gone.to_be_bytes());
            }
            if old.next_if_eq(&edge).is_none() {
                batch.put(&edge.to_be_bytes(), &[]);
            }
        }
        for gone in old {
            batch.delete(&gone.to_be_bytes());
        }
    }

    /// Gives numbers to new assets, in path order, and finds those of the others.
    fn number(&mut self, put: Vec<AssetPut>, graph: &mut Graph<'w>) -> Result<Numbered> {
        let mut numbered =
            Numbered { puts: Vec::with_capacity(put.len()), new: Vec::new(), ids: Vec::with_capacity(put.len()) };
        for put in put {
            let known = match self.base {
                Some(base) => self.existing(base, &put.path)?,
                None => None,
            };
            let id = put.path.id();
            let number = match known {
                Some(number) => {
                    if let Some(base) = self.base {
                        graph.replaced.insert(number, base.row(number)?);
                    }
                    number
                }
                None => {
                    let number = self.root.counters.next_asset;
                    self.root.counters.next_asset = number.checked_add(1).ok_or_else(|| Error::Unsupported {
                        what: format!("'{}'", put.path),
                        why: "asset numbers are used up; compact the bundle".into(),
                    })?;
                    numbered.new.push((key::id(id), number));
                    number
                }
            };
            numbered.ids.push(key::id(id));
            numbered.puts.push(Put { number, put });
        }
        numbered.ids.sort_unstable();
        numbered.new.sort_unstable();
        if let Some([twice, _]) = numbered.ids.array_windows().find(|[one, next]| one == next)
            && let Some(same) = numbered.puts.iter().find(|put| key::id(put.put.path.id()) == *twice)
        {
            return Err(same_id(&same.put.path));
        }
        for (id, number) in &numbered.new {
            self.batch(&tree::IDS).put(id, &number.to_le_bytes());
        }
        if self.root.trees[usize::from(tree::ASSETS.number) - 1].is_none() {
            self.root.counters.ordered = self.root.counters.next_asset;
        }
        Ok(numbered)
    }

    /// The number of an asset of the base.
    fn existing(&self, base: &Inner, path: &AssetPath) -> Result<Option<u32>> {
        let Some(number) = base.number(path.id())? else { return Ok(None) };
        if base.path(number)? == *path { Ok(Some(number)) } else { Err(same_id(path)) }
    }

    fn removed(
        &mut self,
        remove: Vec<AssetId>,
        put: &[[u8; 8]],
        graph: &mut Graph<'w>,
    ) -> Result<Vec<(u32, AssetPath)>> {
        let mut removed = BTreeMap::new();
        let Some(base) = self.base else { return Ok(Vec::new()) };
        for id in remove {
            if put.binary_search(&key::id(id)).is_ok() {
                continue;
            }
            let Some(number) = base.number(id)? else { continue };
            let row = base.row(number)?;
            removed.insert(number, base.path(number)?);
            graph.replaced.insert(number, row);
        }
        Ok(removed.into_iter().collect())
    }

    /// An asset goes: those that depend on it ask for its path from now on.
    fn lose(&mut self, number: u32, path: &AssetPath, graph: &mut Graph<'w>) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        for source in graph.dependents(number)? {
            let neighbour = graph.neighbour(base, source)?;
            neighbour.present.remove(&number);
            neighbour.missing.insert(path.id().0);
            graph.wish(path.id().0, source, path);
            self.batch(&tree::DEPENDENTS).delete(&key::pair(number, source));
        }
        self.batch(&tree::ASSETS).delete(&key::number(number));
        self.batch(&tree::IDS).delete(&key::id(path.id()));
        self.folder_leave(path.folder())
    }

    /// Takes back what the old records of assets that go or are put again said about others.
    fn forget_replaced(&mut self, graph: &mut Graph<'w>) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        let rows: BTreeMap<u32, AssetRow> = graph.replaced.iter().map(|(number, row)| (*number, row.clone())).collect();
        for (number, row) in &rows {
            let (hash, _) = base.content_named(&row.content)?;
            self.content_dropped(&hash);
            let (present, missing) = base.dependency_lists(*number, row)?;
            graph.old_edges.extend(present.iter().map(|target| u64::from(*target) << 32 | u64::from(*number)));
            for id in &missing {
                graph.unwish(*id, *number);
            }
            self.forget_spilled(*number, row)?;
            if row.build {
                let mut cursor = base.tree(&tree::BUILD).seek(&key::build(*number, 0), false)?;
                while let Some((at, _)) = cursor.next()? {
                    if key::head(at.as_slice()) != Some(*number) {
                        break;
                    }
                    self.batch(&tree::BUILD).delete(at.as_slice());
                }
            }
        }
        Ok(())
    }

    fn forget_spilled(&mut self, number: u32, row: &AssetRow) -> Result<()> {
        let Some(base) = self.base.filter(|_| row.spilled) else { return Ok(()) };
        let (present, missing) = base.dependency_lists(number, row)?;
        for target in present {
            self.batch(&tree::DEPENDENCIES).delete(&key::spilled_present(number, target));
        }
        for id in missing {
            self.batch(&tree::DEPENDENCIES).delete(&key::spilled_missing(number, id));
        }
        Ok(())
    }

    /// An asset comes: those that asked for its path depend on it from now on.
    fn gain(&mut self, number: u32, id: u64, graph: &mut Graph<'w>) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        for source in graph.asking(id)? {
            let neighbour = graph.neighbour(base, source)?;
            neighbour.missing.remove(&id);
            neighbour.present.insert(number);
            graph.unwish(id, source);
            self.batch(&tree::DEPENDENTS).put(&key::pair(number, source), &[]);
        }
        Ok(())
    }

    /// Writes the records of the assets that are put.
    fn put_rows(&mut self, mut puts: Vec<Put>, lists: Vec<Lists>, graph: &Graph<'w>) -> Result<()> {
        // Contents first: what an asset's record calls its content is known once all are.
        let mut hashes = Vec::with_capacity(puts.len());
        for Put { put, .. } in &mut puts {
            let hash = put.content.hash();
            hashes.push(self.content_put(std::mem::replace(&mut put.content, ContentPut::Existing(hash))));
        }
        self.count_contents()?;
        let mut last: (String, u32) = (String::new(), 0);
        for ((Put { number, put }, (dependencies, missing)), hash) in puts.into_iter().zip(lists).zip(hashes) {
            let AssetPut { path, kind, executable, build, .. } = put;
            let folder = match graph.replaced.get(&number) {
                Some(row) => row.folder,
                None if last.1 != 0 && path.folder() == last.0 => {
                    self.folder_joined(last.1);
                    last.1
                }
                None => {
                    last = (path.folder().to_owned(), self.folder_enter(path.folder())?);
                    last.1
                }
            };
            if let Some(build) = &build {
                let bytes = encode_build(build);
                if bytes.len() > BUILD_BYTES_MAX {
                    let why = format!("it has more than {BUILD_BYTES_MAX} bytes");
                    return Err(Error::Unsupported { what: format!("the build record of '{path}'"), why });
                }
                for (chunk, bytes) in bytes.chunks(BUILD_CHUNK_BYTES).enumerate() {
                    self.batch(&tree::BUILD).put(&key::build(number, chunk as u16), bytes);
                }
            }
            let row = AssetRow {
                kind,
                executable,
                build: build.is_some(),
                spilled: false,
                folder,
                name: path.file_name().to_owned(),
                content: self.content_name(&hash)?,
                dependencies,
                missing,
            };
            self.put_row(number, row);
        }
        Ok(())
    }

    /// Writes one record; many dependencies go to their own tree.
    fn put_row(&mut self, number: u32, mut row: AssetRow) {
        row.spilled = row.dependencies.len() + row.missing.len() > INLINE_DEPENDENCIES_MAX;
        if row.spilled {
            let batch = self.batch(&tree::DEPENDENCIES);
            for target in std::mem::take(&mut row.dependencies) {
                batch.put(&key::spilled_present(number, target), &[]);
            }
            for id in std::mem::take(&mut row.missing) {
                batch.put(&key::spilled_missing(number, id), &[]);
            }
        }
        let mut value = Vec::with_capacity(96);
        row.encode(&mut value);
        self.batch(&tree::ASSETS).put(&key::number(number), &value);
    }

    /// Writes the records of neighbours and the wishes.
    fn finish_graph(&mut self, graph: Graph<'w>) -> Result<()> {
        for (number, neighbour) in graph.neighbours {
            let Neighbour { row, present, missing } = neighbour;
            self.forget_spilled(number, &row)?;
            let (dependencies, missing) = (present.into_iter().collect(), missing.into_iter().collect());
            self.put_row(number, AssetRow { dependencies, missing, ..row });
        }
        for (id, wish) in graph.wishes {
            let Wish { path, add, remove } = wish;
            let stays = match self.base {
                Some(base) if add.is_empty() => {
                    base.sources(&tree::WANTED, &id.to_le_bytes())?.iter().any(|source| !remove.contains(source))
                }
                _ => !add.is_empty(),
            };
            let batch = self.batch(&tree::WANTED);
            for source in remove {
                batch.delete(&key::wanted(id, source));
            }
            for source in add {
                batch.put(&key::wanted(id, source), &[]);
            }
            match path {
                Some(path) if stays => batch.put(&id.to_le_bytes(), path.as_str().as_bytes()),
                _ if !stays => batch.delete(&id.to_le_bytes()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn same_id(path: &AssetPath) -> Error {
    Error::Unsupported { what: format!("'{path}'"), why: "another path has the same id; rename one of the two".into() }
}
