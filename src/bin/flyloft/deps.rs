//! `deps`: what uses what.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

use clap::Args;
use flyloft::bundle::{Bundle, Dependency};
use flyloft::{AssetId, AssetPath};
use serde::Serialize;

use crate::failure::{Answer, Failure, Result};
use crate::open;
use crate::output::Output;

/// Show what assets depend on
#[derive(Args)]
pub struct Call {
    /// The bundle, or a folder: then what its store has
    source: PathBuf,
    /// Only of this asset; it need not exist with --reverse
    path: Option<String>,
    /// What depends on it instead
    #[arg(short, long)]
    reverse: bool,
    /// And what those depend on in turn, or what depends on those
    #[arg(short, long, requires = "path")]
    all: bool,
    /// A graph for Graphviz: `flyloft deps FILE --dot | dot -Tsvg`; what is missing is dashed
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// The folder's store [default: one in your cache folder]
    #[arg(short, long)]
    store: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// One asset uses another; which may be missing.
#[derive(Serialize)]
struct Edge {
    from: AssetPath,
    to: AssetPath,
    present: bool,
}

#[derive(Serialize)]
struct Head<'a> {
    file: &'a str,
}

pub fn run(call: &Call) -> Result<Answer> {
    let bundle = open::bundle_of(&call.source, call.store.as_deref())?;
    let edges: Box<dyn Iterator<Item = flyloft::Result<Edge>>> = match &call.path {
        Some(path) => {
            let first = if call.reverse { named(&bundle, path)? } else { open::asset(&bundle, path)?.path };
            let next = |path: &AssetPath| if call.reverse { into(&bundle, path) } else { from(&bundle, path) };
            let edges = if call.all { reached(first, next)? } else { next(&first)? };
            Box::new(edges.into_iter().map(Ok))
        }
        None => Box::new(every(&bundle)),
    };
    let mut output = Output::new();
    if call.json {
        output.json_rows(&Head { file: &bundle.info().file }, "dependencies", edges)?;
    } else if call.dot {
        dot(call.path.as_deref(), edges, &mut output)?;
    } else {
        for edge in edges {
            let Edge { from, to, present } = edge?;
            let missing = if present { "" } else { "  (missing)" };
            let alone = call.path.is_some() && !call.all;
            match (alone, call.reverse) {
                (true, true) => output.line(from)?,
                (true, false) => output.line(format_args!("{to}{missing}"))?,
                (false, true) => output.line(format_args!("{to} <- {from}{missing}"))?,
                (false, false) => output.line(format_args!("{from} -> {to}{missing}"))?,
            }
        }
    }
    output.finish()?;
    Ok(Answer::Yes)
}

fn from(bundle: &Bundle, path: &AssetPath) -> flyloft::Result<Vec<Edge>> {
    let edge = |Dependency { path: to, present }| Edge { from: path.clone(), to, present };
    Ok(bundle.dependencies(path.id())?.into_iter().map(edge).collect())
}

fn into(bundle: &Bundle, to: &AssetPath) -> flyloft::Result<Vec<Edge>> {
    let present = bundle.find(to)?.is_some();
    let mut sources = BTreeSet::new();
    for id in bundle.dependents(to.id())? {
        sources.extend(source(bundle, id)?);
    }
    Ok(sources.into_iter().map(|from| Edge { from, to: to.clone(), present }).collect())
}

/// A path that need not exist, as long as something asks for it.
fn named(bundle: &Bundle, path: &str) -> Result<AssetPath> {
    let to = AssetPath::new(path)?;
    if bundle.find(&to)?.is_none() && bundle.dependents(to.id())?.is_empty() {
        let file = &bundle.info().file;
        return Err(Failure::no(format_args!("{file}: '{to}' is not in it and nothing in it asks for that")));
    }
    Ok(to)
}

/// Every edge that is met from `first` on, each asset's once: a cycle ends where it began.
fn reached(first: AssetPath, next: impl Fn(&AssetPath) -> flyloft::Result<Vec<Edge>>) -> Result<Vec<Edge>> {
    let (mut seen, mut waiting, mut edges) = (BTreeSet::from([first.clone()]), VecDeque::from([first]), Vec::new());
    while let Some(path) = waiting.pop_front() {
        for edge in next(&path)? {
            let other = if edge.from == path { &edge.to } else { &edge.from };
            if seen.insert(other.clone()) {
                waiting.push_back(other.clone());
            }
            edges.push(edge);
        }
    }
    Ok(edges)
}

fn source(bundle: &Bundle, id: AssetId) -> flyloft::Result<Option<AssetPath>> {
    Ok(bundle.asset(id)?.map(|record| record.path))
}

fn every(bundle: &Bundle) -> impl Iterator<Item = flyloft::Result<Edge>> + '_ {
    bundle.assets().flat_map(|record| {
        let edges = record.and_then(|record| from(bundle, &record.path));
        let (edges, error) = match edges {
            Ok(edges) => (edges, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        edges.into_iter().map(Ok).chain(error)
    })
}

/// `path`, where only that was asked for, stands in it even when it has no edges.
fn dot(path: Option<&str>, edges: impl Iterator<Item = flyloft::Result<Edge>>, output: &mut Output) -> Result<()> {
    let quoted = |path: &str| format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""));
    output.line("digraph dependencies {\n  rankdir=LR; node [shape=box, fontname=\"sans-serif\"];")?;
    if let Some(path) = path {
        output.line(format_args!("  {} [style=bold];", quoted(path)))?;
    }
    let mut missing = BTreeSet::new();
    for edge in edges {
        let Edge { from, to, present } = edge?;
        let (from, target) = (quoted(from.as_str()), quoted(to.as_str()));
        if !present && missing.insert(to) {
            output.line(format_args!("  {target} [style=dashed, tooltip=\"missing\"];"))?;
        }
        let style = if present { "" } else { " [style=dashed]" };
        output.line(format_args!("  {from} -> {target}{style};"))?;
    }
    output.line("}")
}
