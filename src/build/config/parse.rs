//! From the text of a `flyloft.toml` to its values. Walked by hand, since only that gives each value its place.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::glob::{Globs, GlobsBuilder};
use super::ignore::{Patterns, PatternsBuilder};
use super::near::{hint, hint_of};
use super::{Mistake, Rule, Step, TreeConfig, parameters_hash};
use crate::build::transform::{TransformRegistry, one_line};
use crate::config::RuntimeSettings;
use crate::error::Error;
use crate::ids::AssetPath;

type Result<T, E = Mistake> = std::result::Result<T, E>;

/// Largest `flyloft.toml` that is read.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Mistakes that are told at most.
const MISTAKES_MAX: usize = 20;

/// What the text says as far as it can be understood, and every mistake in it, in the order of the text: one for each
/// rule, dependency and other key.
pub(super) fn tree_config(text: &str, registry: &TransformRegistry) -> (TreeConfig, Vec<Mistake>) {
    let mut config = TreeConfig::default();
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("it has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return (config, vec![Mistake::whole(why)]);
    }
    let mut parser = Parser { text, registry, mistakes: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows from a mistake of the grammar is none of its own.
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            parser.mistakes.push(parser.error(span, one_line(error.message().to_owned())));
        }
        return (config, parser.told());
    }
    for (key, value) in table.get_ref() {
        match key.get_ref().as_ref() {
            "ignore" => config.ignore = parser.patterns(value).unwrap_or_else(|mistake| parser.note(mistake)),
            "transform" => config.rules = parser.rules(value).unwrap_or_else(|mistake| parser.note(mistake)),
            "deps" => config.dependencies = parser.dependencies(value).unwrap_or_else(|mistake| parser.note(mistake)),
            "places" => config.places = parser.places(value).unwrap_or_else(|mistake| parser.note(mistake)),
            "runtime" => config.runtime = parser.runtime(value).unwrap_or_else(|mistake| parser.note(mistake)),
            _ => {
                let mistake = parser.unknown(key, &["ignore", "transform", "deps", "places", "runtime"]);
                parser.note(mistake)
            }
        }
    }
    (config, parser.told())
}

type Node<'a> = Spanned<DeValue<'a>>;
type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

struct Parser<'a> {
    text: &'a str,
    registry: &'a TransformRegistry,
    mistakes: Vec<Mistake>,
}

impl Parser<'_> {
    /// Keeps a mistake and goes on with nothing in place of what it is about.
    fn note<T: Default>(&mut self, mistake: Mistake) -> T {
        self.mistakes.push(mistake);
        T::default()
    }

    fn told(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| mistake.span.start);
        self.mistakes.truncate(MISTAKES_MAX);
        self.mistakes
    }

    /// The mistake of a key that is none of `known`.
    fn unknown(&self, key: &Key<'_>, known: &[&str]) -> Mistake {
        let (last, others) = known.split_last().expect("there are keys");
        let expected = if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
        let name = key.get_ref();
        self.error(
            key.span(),
            format!("unknown key {name:?}; expected {expected}{}", hint(name, known.iter().copied())),
        )
    }

    /// A mistake at a span of the text. Lines and columns are counted from 1, columns in characters.
    fn error(&self, span: Range<usize>, why: impl Into<String>) -> Mistake {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = 1 + memchr::memchr_iter(b'\n', before.as_bytes()).count();
        let column = 1 + before.rsplit('\n').next().unwrap_or(before).chars().count();
        Mistake { span, line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), message: why.into() }
    }

    fn expected<T>(&self, node: &Node<'_>, what: &str) -> Result<T> {
        Err(self.error(node.span(), format!("expected {what}, found {}", kind(node.get_ref()))))
    }

    fn string<'n>(&self, node: &'n Node<'_>, what: &str) -> Result<&'n str> {
        match node.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => self.expected(node, what),
        }
    }

    /// The strings of an array, or the one string, with their places.
    fn strings<'n, 't>(&self, node: &'n Node<'t>, what: &str) -> Result<Vec<(&'n str, &'n Node<'t>)>> {
        match node.get_ref() {
            DeValue::String(text) => Ok(vec![(text, node)]),
            DeValue::Array(items) => {
                items.iter().map(|item| self.string(item, "a string").map(|text| (text, item))).collect()
            }
            _ => self.expected(node, what),
        }
    }

    fn globs(&self, node: &Node<'_>) -> Result<Globs> {
        let mut builder = GlobsBuilder::default();
        for (text, place) in self.strings(node, "a glob or an array of globs")? {
            builder.add(text).map_err(|why| self.error(place.span(), format!("{text:?} is not a glob: {why}")))?;
        }
        builder.build().map_err(|why| self.error(node.span(), format!("these globs cannot be used: {why}")))
    }

    fn patterns(&self, node: &Node<'_>) -> Result<Patterns> {
        let mut builder = PatternsBuilder::default();
        for (text, place) in self.strings(node, "a glob or an array of globs")? {
            builder.add(text).map_err(|why| self.error(place.span(), format!("{text:?} is not a glob: {why}")))?;
        }
        builder.build().map_err(|why| self.error(node.span(), format!("these globs cannot be used: {why}")))
    }

    fn rules(&mut self, node: &Node<'_>) -> Result<Vec<Rule>> {
        let DeValue::Array(items) = node.get_ref() else {
            return self.expected(node, "an array of tables: write [[transform]]");
        };
        let mut rules = Vec::with_capacity(items.len());
        for item in items {
            match self.rule(item) {
                Ok(rule) => rules.push(rule),
                Err(mistake) => self.note(mistake),
            }
        }
        Ok(rules)
    }

    fn rule(&self, node: &Node<'_>) -> Result<Rule> {
        let DeValue::Table(table) = node.get_ref() else {
            return self.expected(node, "a table with glob and name");
        };
        let mut globs = None;
        let mut steps = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "glob" => globs = Some(self.globs(value)?),
                "steps" => steps = Some(self.steps(value)?),
                "name" | "parameters" => {}
                _ => return Err(self.unknown(key, &["glob", "name", "parameters", "steps"])),
            }
        }
        let missing = |what: &str| self.error(node.span(), format!("this [[transform]] has no {what}"));
        let globs = globs.filter(|globs: &Globs| !globs.is_empty()).ok_or_else(|| missing("glob"))?;
        let alone = table.iter().find(|(key, _)| matches!(key.get_ref().as_ref(), "name" | "parameters"));
        let steps = match (steps, alone) {
            (None, _) => vec![self.step(table)?.ok_or_else(|| missing("name"))?],
            (Some(steps), None) => steps,
            (Some(_), Some((key, _))) => {
                return Err(self.error(key.span(), "expected either steps or one name with parameters, found both"));
            }
        };
        Ok(Rule { globs, steps })
    }

    fn steps(&self, node: &Node<'_>) -> Result<Vec<Step>> {
        let DeValue::Array(items) = node.get_ref() else {
            return self.expected(node, "an array of tables with name and parameters");
        };
        if items.is_empty() {
            return Err(self.error(node.span(), "expected at least one step"));
        }
        let step = |item: &Node<'_>| {
            let DeValue::Table(table) = item.get_ref() else {
                return self.expected(item, "a table with name and parameters");
            };
            if let Some((key, _)) =
                table.iter().find(|(key, _)| !matches!(key.get_ref().as_ref(), "name" | "parameters"))
            {
                return Err(self.unknown(key, &["name", "parameters"]));
            }
            self.step(table)?.ok_or_else(|| self.error(item.span(), "this step has no name"))
        };
        items.iter().map(step).collect()
    }

    /// The transform that `name` and `parameters` of a table say; `None` where there is no name.
    fn step(&self, table: &DeTable<'_>) -> Result<Option<Step>> {
        let find = |key: &str| table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value);
        let Some(place) = find("name") else { return Ok(None) };
        let name = self.string(place, "the name of a transform")?;
        let parameters = match find("parameters") {
            None => Spanned::new(place.span(), DeTable::new()),
            Some(node) => match node.get_ref() {
                DeValue::Table(values) => Spanned::new(node.span(), values.clone()),
                _ => return self.expected(node, "a table of parameters"),
            },
        };
        let values = parameters.get_ref().iter();
        let values = values.map(|(key, value)| Ok((key.get_ref().to_string(), self.value(value)?)));
        let hash = parameters_hash(&values.collect::<Result<toml::Table>>()?);
        match self.registry.bind(name, parameters) {
            Some(Ok(transform)) => Ok(Some(Step { transform, parameters: hash })),
            Some(Err(refused)) => {
                let span = refused.span.unwrap_or_else(|| place.span());
                let hint = hint_of(&refused.message);
                Err(self.error(span, format!("parameters of '{name}': {}{hint}", refused.message)))
            }
            None => {
                // One that is only not built in is what was meant.
                let why = self.registry.unknown(name);
                let hint = if why.contains("expected") { hint(name, self.registry.names()) } else { String::new() };
                Err(self.error(place.span(), why + &hint))
            }
        }
    }

    fn dependencies(&mut self, node: &Node<'_>) -> Result<BTreeMap<AssetPath, Vec<AssetPath>>> {
        let DeValue::Table(table) = node.get_ref() else {
            return self.expected(node, "a table: write [deps]");
        };
        let mut all = BTreeMap::new();
        for (key, value) in table {
            match self.dependency(key, value) {
                Ok((path, uses)) => drop(all.insert(path, uses)),
                Err(mistake) => self.note(mistake),
            }
        }
        Ok(all)
    }

    fn dependency(&self, key: &Key<'_>, value: &Node<'_>) -> Result<(AssetPath, Vec<AssetPath>)> {
        let path = self.path(key.get_ref(), key.span())?;
        let mut uses = Vec::new();
        let mut seen = BTreeSet::new();
        for (text, place) in self.strings(value, "a path or an array of paths")? {
            let used = self.path(text, place.span())?;
            if used != path && seen.insert(used.clone()) {
                uses.push(used);
            }
        }
        Ok((path, uses))
    }

    fn runtime(&self, node: &Node<'_>) -> Result<RuntimeSettings> {
        let DeValue::Table(table) = node.get_ref() else {
            return self.expected(node, "a table: write [runtime]");
        };
        let table = Spanned::new(node.span(), table.clone());
        let settings = RuntimeSettings::deserialize(toml::de::Deserializer::from(table)).map_err(|error| {
            let why = one_line(error.message().to_owned());
            let hint = hint_of(&why);
            self.error(error.span().unwrap_or_else(|| node.span()), format!("runtime: {why}{hint}"))
        })?;
        settings.validate().map_err(|error| self.error(node.span(), format!("runtime: {error}")))?;
        Ok(settings)
    }

    fn path(&self, text: &str, span: Range<usize>) -> Result<AssetPath> {
        AssetPath::new(text).map_err(|error| {
            let why = match error {
                Error::InvalidPath { path, why } => format!("{path:?} is not a path of the tree: {why}"),
                other => other.to_string(),
            };
            self.error(span, why)
        })
    }

    /// A parameter as a plain value.
    fn value(&self, node: &Node<'_>) -> Result<Value> {
        Ok(match node.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => {
                let value = i64::from_str_radix(integer.as_str(), integer.radix());
                Value::Integer(value.map_err(|_| self.error(node.span(), "expected an integer of 64 bits"))?)
            }
            DeValue::Float(float) => {
                let value = float.as_str().parse();
                Value::Float(value.map_err(|_| self.error(node.span(), "expected a number"))?)
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(value) => Value::Datetime(*value),
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_>>()?),
            DeValue::Table(table) => Value::Table(
                table
                    .iter()
                    .map(|(key, value)| Ok((key.get_ref().to_string(), self.value(value)?)))
                    .collect::<Result<_>>()?,
            ),
        })
    }
}

/// What a value is, in an error.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
