//! `gltf`: glTF 2.0, as JSON or GLB, checked and split into its meshes, materials, textures and so on.
//!
//! The asset itself stays as it is. What it consists of are assets of their own below it, such as `scene.gltf#mesh/0`:
//! docs/transforms.md says how each is laid out. A file that breaks the rules of glTF, or whose parts are not there,
//! does not build; the error names the path in its JSON, and the line where that is a line of the file.

mod array;
mod document;
mod place;
mod split;

use super::{Context, Input, NoParameters, Output, Transform};
use crate::error::{Error, Result};

use document::{Document, Fault, Parts};

/// The transform `gltf`. It takes no parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gltf;

impl Gltf {
    /// Its name.
    pub const NAME: &'static str = "gltf";
}

impl Transform for Gltf {
    type Parameters = NoParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn run(&self, input: Input<'_>, _: &NoParameters, context: &mut dyn Context) -> Result<Output> {
        let parts = Parts::of(input.bytes).map_err(|fault| input.error(Self::NAME, None, fault.cause))?;
        let mut split = || {
            let document = Document::read(input, &parts, context)?;
            split::all(&document, input.path, context)
        };
        let labelled = split().map_err(|fault| failure(input, &parts, fault))?;
        Ok(Output { bytes: input.bytes.to_vec(), labelled, dependencies: Vec::new() })
    }
}

fn failure(input: Input<'_>, parts: &Parts<'_>, fault: Fault) -> Error {
    let cause = if fault.path.is_empty() { fault.cause } else { format!("{}: {}", fault.path, fault.cause) };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let place = match fault.place {
        // What is said of the whole has no line.
        None if fault.path.is_empty() => None,
        None => {
            let before = &parts.json[..place::find(parts.json, &fault.path)];
            let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
            let line = 1 + memchr::memchr_iter(b'\n', before).count();
            Some((line, 1 + String::from_utf8_lossy(&before[start..]).chars().count()))
        }
        place => place,
    };
    match place {
        Some((line, column)) if parts.is_text => input.error_at(Gltf::NAME, number(line), number(column), cause),
        _ => input.error(Gltf::NAME, None, cause),
    }
}

#[cfg(test)]
mod tests;
