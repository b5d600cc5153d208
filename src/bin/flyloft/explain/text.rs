//! An explanation as people read it: one line for each thing that is known.

use std::time::Duration;

use flyloft::build::{Because, Why};
use flyloft::event::BuildFailure;
use flyloft::runtime::Explanation;
use flyloft::runtime::explain::{AssetFacts, BuildFacts, LastChange, Residency, Users};

use crate::failure::Result;
use crate::output::Output;
use crate::size;

/// Paths that a line names.
const NAMED_MAX: usize = 4;

/// Writes it, `by` saying who knows.
pub fn write(explained: &Explanation, by: &str, output: &mut Output) -> Result<()> {
    let Explanation { path, generation, asset, used_by, residency, last_change, failure, built: built_last, pending } =
        explained;
    output.line(format_args!("{path}: generation {generation}, {by}"))?;
    let mut line = |name: &str, text: String| output.line(format_args!("  {name:<9} {text}"));
    match asset {
        Some(asset) => {
            line("asset", about(asset))?;
            if let Some(build) = &asset.build {
                line("built", built(build))?;
            }
            if asset.uses.count > 0 {
                line("uses", listed(&asset.uses))?;
            }
            if !asset.missing.is_empty() {
                let missing = Users { count: asset.missing.len() as u64, first: asset.missing.clone() };
                line("missing", listed(&missing))?;
            }
        }
        None => line("asset", "none of this path".to_owned())?,
    }
    if used_by.count > 0 {
        line("used by", listed(used_by))?;
    }
    if let Some(why) = built_last {
        line("rebuilt", rebuilt(why))?;
    }
    for reason in pending {
        line("pending", because(reason))?;
    }
    if let Some(change) = last_change {
        line("changed", changed(change))?;
    }
    if let Some(failure) = failure {
        line("fails", failed(failure, asset.is_some()))?;
    }
    if let Some(residency) = residency.as_ref().and_then(held) {
        line("memory", residency)?;
    }
    Ok(())
}

fn about(asset: &AssetFacts) -> String {
    let AssetFacts { kind, bytes, content, executable, frames, stored_bytes, .. } = asset;
    let count: u64 = frames.values().sum();
    let codecs: Vec<&str> = frames.keys().map(String::as_str).collect();
    let stored = match count {
        0 => "nothing to store".to_owned(),
        _ => format!("{} in {} ({})", size::bytes(*stored_bytes), size::counted(count, "frame"), codecs.join(", ")),
    };
    let executable = if *executable { ", executable" } else { "" };
    format!("{kind}, {}, content {}{executable}; {stored}", size::bytes(*bytes), content.short())
}

fn built(build: &BuildFacts) -> String {
    let BuildFacts { source, steps, read, absent, listed: folders, labels, .. } = build;
    let steps: Vec<String> = steps.iter().map(|step| format!("{} {}", step.transform, step.version)).collect();
    let mut text = format!("by {} from {source}", steps.join(", then "));
    if read.count > 0 {
        text += &format!(" and {}", listed(read));
    }
    if absent.count > 0 {
        text += &format!("; looked for {} in vain", listed(absent));
    }
    if !folders.is_empty() {
        let names: Vec<String> = folders.iter().map(|folder| format!("{folder}/")).collect();
        text += &format!("; listed {}", names.join(", "));
    }
    if !labels.is_empty() {
        text += &format!("; made {} beside it", size::counted(labels.len() as u64, "labelled part"));
    }
    text
}

/// Why it was built, or would be.
fn because(because: &Because) -> String {
    match because {
        Because::New => "it was not there before, or did not build".to_owned(),
        Because::SourceChanged => "its source changed".to_owned(),
        Because::SourceGone => "its source is gone".to_owned(),
        Because::InputChanged { path } => format!("{path}, which it is made from, changed"),
        Because::InputAppeared { path } => format!("{path}, which was looked for, is there now"),
        Because::InputGone { path } => format!("{path}, which it is made from, is gone"),
        Because::ListingChanged { folder } => format!("other names stand in {folder}/, which was listed"),
        Because::TransformChanged => "another transform makes it, or another version".to_owned(),
        Because::ParametersChanged => "the parameters of its transform changed".to_owned(),
        Because::Forced => "it failed before, or something may have been missed".to_owned(),
        other => format!("{other:?}"),
    }
}

fn rebuilt(why: &Why) -> String {
    let Why { generation, because: reason, from_action_cache, build_us, .. } = why;
    let took = match (from_action_cache, build_us) {
        (true, _) => "; taken from the action cache".to_owned(),
        (false, 0) => String::new(),
        (false, us) => format!("; its transforms took {}", size::span(Duration::from_micros(*us))),
    };
    format!("in generation {generation}: {}{took}", because(reason))
}

fn listed(users: &Users) -> String {
    let named: Vec<&str> = users.first.iter().take(NAMED_MAX).map(|path| path.as_str()).collect();
    match users.count.saturating_sub(named.len() as u64) {
        0 => named.join(", "),
        more => format!("{} and {} more", named.join(", "), size::count(more)),
    }
}

fn changed(change: &LastChange) -> String {
    let LastChange { generation, old, new } = change;
    match (old, new) {
        (Some(old), Some(new)) => format!("in generation {generation}, from {} to {}", old.short(), new.short()),
        (None, _) => format!("new in generation {generation}"),
        (_, None) => format!("gone since generation {generation}"),
    }
}

fn failed(failure: &BuildFailure, has_good: bool) -> String {
    let good = if has_good { "; its last good version is served" } else { "; it never built" };
    format!("{failure}{good}")
}

/// Where its bytes are; nothing where there is no asset.
fn held(residency: &Residency) -> Option<String> {
    Some(match residency {
        Residency::Resident { weight_bytes, pinned, as_stored, used_later, of } => {
            let held = if *pinned { ", pinned: somebody holds it" } else { "" };
            let stored = if *as_stored { " as it is stored" } else { "" };
            let (weight, later, of) = (size::bytes(*weight_bytes), size::count(*used_later), size::count(*of));
            format!("resident{stored}, {weight}{held}; {later} of {of} were used after it")
        }
        Residency::Queued { priority, waiting_ms, waiters, failed_attempts, step } => {
            let waiting = size::span(Duration::from_millis(*waiting_ms));
            let failed = match failed_attempts {
                0 => String::new(),
                failed => format!(", {} failed", size::counted(u64::from(*failed), "attempt")),
            };
            let waiters = size::counted(u64::from(*waiters), "request");
            format!("queued for {waiting}, {} priority, {waiters} waiting, {step}{failed}", priority.name())
        }
        Residency::Quarantined { attempts, cause } => {
            format!("quarantined after {attempts} failed attempts: {cause}; tried again when it changes")
        }
        Residency::Evicted { ago_ms, wanted_bytes, kind } => {
            let (ago, wanted) = (size::span(Duration::from_millis(*ago_ms)), size::bytes(*wanted_bytes));
            let budget = kind.map_or("the budget".to_owned(), |kind| format!("the budget for {kind}"));
            format!("evicted {ago} ago: {wanted} were wanted and {budget} was full")
        }
        Residency::NotLoaded => "not loaded: not asked for lately".to_owned(),
        _ => return None,
    })
}
