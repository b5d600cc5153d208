//! `deps`: what uses what.

use std::collections::BTreeSet;
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
    /// The bundle
    file: PathBuf,
    /// Only of this asset; it need not exist with --reverse
    path: Option<String>,
    /// What depends on it instead
    #[arg(short, long)]
    reverse: bool,
    /// A graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    dot: bool,
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
    let bundle = open::bundle(&call.file)?;
    let edges: Box<dyn Iterator<Item = flyloft::Result<Edge>>> = match &call.path {
        Some(path) if call.reverse => Box::new(into(&bundle, path)?.into_iter().map(Ok)),
        Some(path) => Box::new(from(&bundle, &open::asset(&bundle, path)?.path)?.into_iter().map(Ok)),
        None => Box::new(every(&bundle)),
    };
    let mut output = Output::new();
    if call.json {
        output.json_rows(&Head { file: &bundle.info().file }, "dependencies", edges)?;
    } else if call.dot {
        dot(edges, &mut output)?;
    } else {
        for edge in edges {
            let Edge { from, to, present } = edge?;
            let missing = if present { "" } else { "  (missing)" };
            match (&call.path, call.reverse) {
                (Some(_), true) => output.line(from)?,
                (Some(_), false) => output.line(format_args!("{to}{missing}"))?,
                (None, true) => output.line(format_args!("{to} <- {from}{missing}"))?,
                (None, false) => output.line(format_args!("{from} -> {to}{missing}"))?,
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

fn into(bundle: &Bundle, path: &str) -> Result<Vec<Edge>> {
    let to = AssetPath::new(path)?;
    let present = bundle.find(&to)?.is_some();
    let mut sources = BTreeSet::new();
    for id in bundle.dependents(to.id())? {
        sources.extend(source(bundle, id)?);
    }
    if !present && sources.is_empty() {
        let file = &bundle.info().file;
        return Err(Failure::no(format_args!("{file}: '{to}' is not in it and nothing in it asks for that")));
    }
    Ok(sources.into_iter().map(|from| Edge { from, to: to.clone(), present }).collect())
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

fn dot(edges: impl Iterator<Item = flyloft::Result<Edge>>, output: &mut Output) -> Result<()> {
    let quoted = |path: &AssetPath| format!("\"{}\"", path.as_str().replace('\\', "\\\\").replace('"', "\\\""));
    output.line("digraph dependencies {\n  rankdir=LR; node [shape=box, fontname=\"sans-serif\"];")?;
    for edge in edges {
        let Edge { from, to, present } = edge?;
        let style = if present { "" } else { " [style=dashed, label=\"missing\"]" };
        output.line(format_args!("  {} -> {}{style};", quoted(&from), quoted(&to)))?;
    }
    output.line("}")
}
