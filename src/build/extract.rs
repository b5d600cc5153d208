//! What a file says that it uses, read out of its bytes.
//!
//! Extractors never fail: what does not parse has no references. They see hostile bytes, so that each is bounded in
//! time, memory and depth; and every byte of a tree, so that each looks first for what is rare.

mod css;
mod found;
mod gltf;
mod html;
mod html_tag;
mod marks;
mod memo;
mod obj;
mod shader;
mod xml;

use std::cell::RefCell;

use crate::ids::AssetPath;

use found::Found;
#[cfg(feature = "gltf")]
pub(super) use found::percent_decoded;
use memo::Memo;

/// A file that another one names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The file, within the tree. What lies outside the tree is no reference.
    pub target: AssetPath,
    /// The line that names it, counted from 1, where that is known.
    pub line: Option<u32>,
    /// Whether the file is meant to exist: if it does not, a warning says so and it is waited for. What only looks
    /// like a file's name is not required, and is a reference only when there is such a file.
    pub required: bool,
}

/// A format whose references are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gltf,
    Obj,
    Mtl,
    Html,
    Css,
    Shader,
    Xml,
}

impl Format {
    /// The format that the extension stands for.
    fn of_extension(extension: &str) -> Option<Self> {
        // Most extensions are short; what is longer than the longest known one is not worth a copy.
        let mut lower = [0; 8];
        let lower = lower.get_mut(..extension.len())?;
        lower.copy_from_slice(extension.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"gltf" | b"glb" => Self::Gltf,
            b"obj" => Self::Obj,
            b"mtl" => Self::Mtl,
            b"html" | b"htm" | b"xhtml" | b"xht" => Self::Html,
            b"css" => Self::Css,
            b"glsl" | b"vert" | b"frag" | b"geom" | b"comp" | b"tesc" | b"tese" | b"vs" | b"fs" | b"vsh" | b"fsh"
            | b"rgen" | b"rchit" | b"rahit" | b"rmiss" | b"rint" | b"rcall" | b"task" | b"wgsl" | b"hlsl"
            | b"hlsli" | b"fx" | b"fxh" | b"cginc" | b"metal" | b"shader" => Self::Shader,
            b"xml" | b"svg" | b"dae" | b"x3d" | b"tmx" | b"xsl" => Self::Xml,
            _ => return None,
        })
    }

    /// The format of this file; engines give XML any extension, and its first bytes tell.
    fn of(path: &AssetPath, bytes: &[u8]) -> Option<Self> {
        path.extension().and_then(Self::of_extension).or_else(|| xml::begins(bytes).then_some(Self::Xml))
    }
}

/// What the file at `path` with these bytes names, each target once, in the order of the file.
///
/// The extension of `path` says how it is read, and `<?xml` at the start does where the extension is not known; of
/// most kinds of file nothing is read.
///
/// ```
/// use flyloft::AssetPath;
/// use flyloft::build::extract::references;
/// let page = AssetPath::new("docs/index.html")?;
/// let found = references(&page, b"<img src='../logo.svg?v=2'> <a href='next.html'>");
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0].target.as_str(), "logo.svg");
/// # Ok::<(), flyloft::Error>(())
/// ```
pub fn references(path: &AssetPath, bytes: &[u8]) -> Vec<Reference> {
    let Some(format) = Format::of(path, bytes) else { return Vec::new() };
    MEMO.with_borrow_mut(|memo| {
        let mut found = Found::new(path, bytes, memo);
        match format {
            Format::Gltf => gltf::extract(&mut found),
            Format::Obj => obj::extract_obj(&mut found),
            Format::Mtl => obj::extract_mtl(&mut found),
            Format::Html => html::extract(&mut found),
            Format::Css => css::extract(&mut found, 0..bytes.len()),
            Format::Shader => shader::extract(&mut found),
            Format::Xml => xml::extract(&mut found),
        }
        found.finish()
    })
}

/// The file of the tree that a reference stands for as web formats write it, in the file at `from`.
#[cfg(feature = "gltf")]
pub(super) fn target(from: &AssetPath, url: &str) -> Option<AssetPath> {
    let decoded = found::percent_decoded(found::local_part(url.as_bytes())?);
    from.resolve(std::str::from_utf8(&decoded).ok()?)
}

thread_local! {
    /// Saves work between the files of one thread; what is found never depends on it.
    static MEMO: RefCell<Memo> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One name per format.
    const NAMES: [&str; 9] =
        ["a/b.gltf", "a/b.glb", "a/b.obj", "a/b.mtl", "a/b.html", "a/b.css", "a/b.glsl", "b.xml", "b"];

    fn check(bytes: &[u8]) {
        for name in NAMES {
            let path = AssetPath::new(name).unwrap();
            let found = references(&path, bytes);
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            let mut targets: Vec<&AssetPath> = found.iter().map(|reference| &reference.target).collect();
            assert!(
                found.iter().all(|reference| reference.line.is_none_or(|line| (1..=lines).contains(&(line as usize))))
            );
            assert!(!targets.contains(&&path), "a file does not depend on itself");
            targets.sort();
            targets.dedup();
            assert_eq!(targets.len(), found.len(), "each target once");
            assert_eq!(found, references(&path, bytes), "what was found before changes nothing");
        }
    }

    #[test]
    fn an_unknown_format_has_no_references() {
        for name in ["a.png", "a", "a.", "a.averyveryverylongextension", "a.js"] {
            assert_eq!(references(&AssetPath::new(name).unwrap(), b"<img src=a.png> url(b.png)"), [], "{name}");
        }
    }

    #[test]
    fn the_same_words_in_another_folder_are_another_file() {
        for (page, expected) in
            [("a/x.html", "a/p.png"), ("b/x.html", "b/p.png"), ("x.html", "p.png"), ("a/y.html", "a/p.png")]
        {
            let found = references(&AssetPath::new(page).unwrap(), b"<img src=p.png>");
            assert_eq!(found[0].target.as_str(), expected);
        }
    }

    #[test]
    fn time_grows_with_length_even_where_nothing_ever_closes() {
        let open = [
            "<!--",
            "<script>",
            "<script></SCRIPT>",
            "<style>",
            "<img src=\"",
            "<img a='<img b=\"",
            "<link ",
            "url(",
            "url(\"",
            "<p style=\"",
            "<img =",
            "/*",
            "@import \"",
            "#include \"a",
            "#include <",
            "mtllib ",
            "mtllib a.mtl ",
            "map_Kd -s 1 ",
            "map_Kd -o ",
            "<a b='c.d' ",
            "<a xmlns='b'>",
            "{\"buffers\":[",
            "{\"images\":[{\"uri\":\"a\"},",
            "\"",
            "\\",
            "%",
            "/*/",
            "&amp",
            "<?xml a",
            "a.b/",
            "../",
            "<use href=a>",
        ];
        for part in open {
            for prefix in ["", "<?xml version='1.0'?>", "<style>", "<img srcset=\"", "<p style=\"url(", "{\"images\":["]
            {
                let text = format!("{prefix}{}", part.repeat((1 << 15) / part.len()));
                for name in NAMES {
                    references(&AssetPath::new(name).unwrap(), text.as_bytes());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&bytes);
        }

        #[test]
        fn pieces_of_every_format_in_any_order_do_not_panic(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "<", ">", "<link rel=icon href=", "<script", "</script", "<style", "</style>", "<!--", "-->", "<img src=",
                    "<base href=", "srcset=", "style=", "url(", ")", "@import ", "/*", "*/", "\\", "\"", "'", "=", " ", "\n", "\r",
                    "a.png", "../", "./", "/", "//", "%2e", "%", "&amp;", "&", "#include ", "mtllib ", "map_Kd ", "-s ", "1 ", "-o ",
                    "{", "}", "[", "]", ":", ",", "\"buffers\"", "\"uri\"", "glTF\u{2}\0\0\0", "JSON", "<?xml?>", "<a b=", "/>", "é", "?", "#",
                    "<IMG SRC=", "<P STYLE=",
                ]),
                0..40,
            ),
        ) {
            check(pieces.concat().as_bytes());
        }
    }
}
