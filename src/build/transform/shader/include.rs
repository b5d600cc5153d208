//! Shader sources with what they include, and where each line of the whole came from.
//!
//! `#include "file"` is looked up beside the including file and then in the rule's folders, `#include <file>` in the
//! folders alone. `// include: file` is the same as the first for languages that know no `#`, so that their own tools
//! still read the file. What stands in a comment block is no directive.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::Context;
use crate::ids::AssetPath;

/// How deep files may include one another.
const DEPTH_MAX: usize = 64;
/// The largest shader with all that it includes: a few files that include each other twice grow without bounds.
const BYTES_MAX: usize = 16 << 20;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The file's place in [`Whole::files`]; the first is the shader itself.
    pub file: usize,
    /// The line in that file, from 1; 0 for what stands in no file.
    pub line: u32,
    /// The line of the shader that is this one or includes it.
    pub shader_line: u32,
}

/// A shader and all that it includes, as one text.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub text: String,
    pub files: Vec<AssetPath>,
    origins: Vec<Origin>,
}

/// Why there is no whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub origin: Origin,
    /// The file in which the line is.
    pub file: AssetPath,
    pub cause: String,
}

impl Whole {
    /// Where the byte at this place of the text came from, and its column there, in characters from 1.
    pub fn origin(&self, at: usize) -> Option<(Origin, u32)> {
        let at = self.text.floor_char_boundary(at);
        let before = &self.text[..at];
        let line = memchr::memchr_iter(b'\n', before.as_bytes()).count();
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        // The end of the text belongs to its last line.
        let origin = self.origins.get(line).or(self.origins.last())?;
        Some((*origin, u32::try_from(column).unwrap_or(u32::MAX)))
    }

    /// Puts lines of no file in front of the text, but after the line that must be the first one of GLSL.
    pub fn define(&mut self, lines: &[String]) {
        let first = self.text.lines().position(|line| line.trim_start().starts_with("#version")).map_or(0, |at| at + 1);
        let at = self.text.split_inclusive('\n').take(first).map(str::len).sum();
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        self.text.insert_str(at, &text);
        let shader_line = u32::try_from(first.max(1)).unwrap_or(u32::MAX);
        let origins = lines.iter().map(|_| Origin { file: 0, line: 0, shader_line });
        self.origins.splice(first..first, origins);
    }
}

/// Reads all that `text`, the shader at `path`, includes. In some languages comment blocks nest.
pub(super) fn whole(
    path: &AssetPath,
    text: &str,
    folders: &[String],
    comments_nest: bool,
    context: &mut dyn Context,
) -> Result<Whole, Broken> {
    let mut including = Including {
        folders,
        comments_nest,
        context,
        known: HashMap::from([(path.clone(), Rc::from(text))]),
        once: HashSet::new(),
        open: Vec::new(),
        whole: Whole::default(),
    };
    including.file(path, Rc::from(text), None)?;
    Ok(including.whole)
}

struct Including<'a> {
    folders: &'a [String],
    comments_nest: bool,
    context: &'a mut dyn Context,
    /// Files that were read.
    known: HashMap<AssetPath, Rc<str>>,
    /// Those of them that say `#pragma once`, and were put in.
    once: HashSet<AssetPath>,
    /// The files that are being put in, each included by the one before.
    open: Vec<AssetPath>,
    whole: Whole,
}

impl Including<'_> {
    /// Puts in a file; `shader_line` is the line of the shader that asks for it, `None` for the shader itself.
    fn file(&mut self, path: &AssetPath, text: Rc<str>, shader_line: Option<u32>) -> Result<(), Broken> {
        let known = self.whole.files.iter().position(|known| known == path);
        let file = known.unwrap_or_else(|| {
            self.whole.files.push(path.clone());
            self.whole.files.len() - 1
        });
        self.open.push(path.clone());
        let mut comment = Comment { nests: self.comments_nest, depth: 0 };
        for (line, text) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(&text).lines()) {
            let origin = Origin { file, line, shader_line: shader_line.unwrap_or(line) };
            let is_code = !comment.is_open();
            comment.read(text);
            match is_code.then(|| directive(text)).flatten() {
                Some(Directive::Once) => {
                    self.once.insert(path.clone());
                    self.line("", origin)?;
                }
                Some(Directive::Include { name, beside }) => self.include(path, name, beside, origin)?,
                None => self.line(text, origin)?,
            }
        }
        self.open.pop();
        Ok(())
    }

    fn broken(&self, origin: Origin, cause: String) -> Broken {
        Broken { origin, file: self.whole.files[origin.file].clone(), cause }
    }

    fn line(&mut self, text: &str, origin: Origin) -> Result<(), Broken> {
        if self.whole.text.len() + text.len() >= BYTES_MAX {
            return Err(self.broken(origin, format!("with all that it includes it is larger than {BYTES_MAX} bytes")));
        }
        self.whole.text.push_str(text);
        self.whole.text.push('\n');
        self.whole.origins.push(origin);
        Ok(())
    }

    fn include(&mut self, from: &AssetPath, name: &str, beside: bool, origin: Origin) -> Result<(), Broken> {
        let in_folders = self.folders.iter().map(|folder| format!("/{folder}/{name}"));
        let candidates: Vec<AssetPath> = beside
            .then(|| name.to_owned())
            .into_iter()
            .chain(in_folders)
            .filter_map(|name| from.resolve(&name))
            .collect();
        for path in &candidates {
            if let Some(at) = self.open.iter().position(|open| open == path) {
                let chain: Vec<&str> = self.open[at..].iter().chain([path]).map(AssetPath::as_str).collect();
                return Err(self.broken(origin, format!("it includes itself: {}", chain.join(" includes "))));
            }
            if self.once.contains(path) {
                return self.line("", origin);
            }
            let text = match self.read(path) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(cause) => return Err(self.broken(origin, format!("{path}: {cause}"))),
            };
            if self.open.len() >= DEPTH_MAX {
                return Err(self.broken(origin, format!("files include one another more than {DEPTH_MAX} deep")));
            }
            return self.file(path, text, Some(origin.shader_line));
        }
        let tried: Vec<&str> = candidates.iter().map(AssetPath::as_str).collect();
        let cause = match &tried[..] {
            [] if !beside && self.folders.is_empty() => {
                format!("<{name}> is looked up in 'include_folders', and the rule gives none")
            }
            [] => format!("{name:?} is no path of the tree"),
            tried => format!("there is no file {name:?}; looked for {}", tried.join(", ")),
        };
        Err(self.broken(origin, cause))
    }

    fn read(&mut self, path: &AssetPath) -> Result<Option<Rc<str>>, &'static str> {
        if let Some(text) = self.known.get(path) {
            return Ok(Some(Rc::clone(text)));
        }
        let Some(bytes) = self.context.read(path) else { return Ok(None) };
        let text: Rc<str> = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?.into();
        self.known.insert(path.clone(), Rc::clone(&text));
        Ok(Some(text))
    }
}

/// Whether a comment block is open, from one line to the next.
struct Comment {
    nests: bool,
    depth: u32,
}

impl Comment {
    fn is_open(&self) -> bool {
        self.depth > 0
    }

    fn read(&mut self, line: &str) {
        let bytes = line.as_bytes();
        let mut at = 0;
        while let Some(two) = bytes.get(at..at + 2) {
            match two {
                b"//" if !self.is_open() => return,
                b"/*" if self.nests || !self.is_open() => self.depth += 1,
                b"*/" => self.depth = self.depth.saturating_sub(1),
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 2;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Directive<'a> {
    Include {
        name: &'a str,
        /// Whether it is looked for beside the including file too.
        beside: bool,
    },
    Once,
}

fn directive(line: &str) -> Option<Directive<'_>> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("//").map(str::trim_start).and_then(|rest| rest.strip_prefix("include:")) {
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        return (!name.is_empty()).then_some(Directive::Include { name, beside: true });
    }
    let rest = line.strip_prefix('#')?.trim_start();
    if let Some(name) = rest.strip_prefix("include") {
        let name = name.trim_start();
        let (beside, close) = if name.starts_with('"') { (true, '"') } else { (false, '>') };
        let name = name.strip_prefix(['"', '<'])?;
        let (name, _) = name.split_once(close)?;
        return Some(Directive::Include { name, beside });
    }
    let once = rest.strip_prefix("pragma")?.trim_start();
    (once.split_whitespace().next() == Some("once")).then_some(Directive::Once)
}
