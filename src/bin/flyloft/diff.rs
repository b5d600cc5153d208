//! `diff`: what differs between two bundles.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::path::PathBuf;

use clap::Args;
use flyloft::bundle::AssetRecord;
use flyloft::{AssetPath, ContentHash};
use serde::Serialize;

use crate::failure::{Answer, Result};
use crate::open;
use crate::output::Output;

/// List what differs between two bundles; status 1 when something does
#[derive(Args)]
pub struct Call {
    /// The bundle that was
    old: PathBuf,
    /// The bundle that is
    new: PathBuf,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Added,
    Removed,
    Changed,
    FolderAdded,
    FolderRemoved,
}

#[derive(Serialize)]
struct Difference {
    change: Change,
    path: AssetPath,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<State>,
}

/// What a tree means by a file.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
struct State {
    hash: ContentHash,
    bytes: u64,
    executable: bool,
}

#[derive(Serialize)]
struct Head {
    old: String,
    new: String,
}

pub fn run(call: &Call) -> Result<Answer> {
    let (old, new) = (open::bundle(&call.old)?, open::bundle(&call.new)?);
    let state = |record: &AssetRecord| State { hash: record.content, bytes: record.len, executable: record.executable };
    let assets = |record: flyloft::Result<AssetRecord>| {
        record.map(|record| {
            let state = state(&record);
            (record.path, state)
        })
    };
    let files = Merge::new(old.assets().map(assets), new.assets().map(assets)).filter_map(|pair| {
        let difference = |(path, old, new): (AssetPath, Option<State>, Option<State>)| {
            let change = match (&old, &new) {
                (Some(_), None) => Change::Removed,
                (None, _) => Change::Added,
                (Some(old), Some(new)) if old == new => return None,
                (Some(_), Some(_)) => Change::Changed,
            };
            Some(Difference { change, path, old, new })
        };
        pair.map(difference).transpose()
    });
    let named = |path: flyloft::Result<AssetPath>| path.map(|path| (path, ()));
    let folders = Merge::new(old.folders().map(named), new.folders().map(named)).filter_map(|pair| {
        let difference = |(path, old, new): (AssetPath, Option<()>, Option<()>)| match (old, new) {
            (Some(()), None) => Some(Difference { change: Change::FolderRemoved, path, old: None, new: None }),
            (None, Some(())) => Some(Difference { change: Change::FolderAdded, path, old: None, new: None }),
            _ => None,
        };
        pair.map(difference).transpose()
    });
    let mut answer = Answer::Yes;
    let differences = files.chain(folders).inspect(|_| answer = Answer::No);
    let mut output = Output::new();
    if call.json {
        let head = Head { old: old.info().file.clone(), new: new.info().file.clone() };
        output.json_rows(&head, "differences", differences)?;
    } else {
        for difference in differences {
            output.line(line(&difference?))?;
        }
    }
    output.finish()?;
    Ok(answer)
}

fn line(difference: &Difference) -> String {
    let path = &difference.path;
    match difference.change {
        Change::Added => format!("+ {path}"),
        Change::Removed => format!("- {path}"),
        Change::FolderAdded => format!("+ {path}/"),
        Change::FolderRemoved => format!("- {path}/"),
        Change::Changed => {
            let hash = |state: Option<State>| state.map(|state| state.hash);
            let only_mode = hash(difference.old) == hash(difference.new);
            format!("~ {path}{}", if only_mode { "  (execute bit)" } else { "" })
        }
    }
}

/// Two lists in path order as one: each path with what either has of it. Ends after the first error.
struct Merge<A: Iterator, B: Iterator> {
    old: Peekable<A>,
    new: Peekable<B>,
}

impl<T, A, B> Merge<A, B>
where
    A: Iterator<Item = flyloft::Result<(AssetPath, T)>>,
    B: Iterator<Item = flyloft::Result<(AssetPath, T)>>,
{
    fn new(old: A, new: B) -> Self {
        Self { old: old.peekable(), new: new.peekable() }
    }
}

impl<T, A, B> Iterator for Merge<A, B>
where
    A: Iterator<Item = flyloft::Result<(AssetPath, T)>>,
    B: Iterator<Item = flyloft::Result<(AssetPath, T)>>,
{
    type Item = flyloft::Result<(AssetPath, Option<T>, Option<T>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.old.peek(), self.new.peek()) {
            (Some(Ok((old, _))), Some(Ok((new, _)))) => old.cmp(new),
            (None, None) => return None,
            // An error is taken at once, wherever it is.
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let old = if order.is_le() { self.old.next().transpose() } else { Ok(None) };
        let new = if order.is_ge() { self.new.next().transpose() } else { Ok(None) };
        Some(match (old, new) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(Some((path, old))), Ok(new)) => Ok((path, Some(old), new.map(|(_, new)| new))),
            (Ok(None), Ok(Some((path, new)))) => Ok((path, None, Some(new))),
            // One of both was there to be compared.
            (Ok(None), Ok(None)) => return None,
        })
    }
}
