//! XML of any kind: attribute values that look like the name of a file.
//!
//! Whether one is a file only the tree can tell, so that none is required.

use memchr::{memchr2_iter, memmem};
use roxmltree::{Document, ParsingOptions};

use super::found::Found;

/// Largest text that is read.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Most nodes of a document.
const NODES_MAX: u32 = 1 << 20;
/// Most attributes of one element: the parser compares each with all others.
const ATTRIBUTES_MAX: usize = 512;
/// Most declarations of namespaces: the parser copies those that hold for each element that adds one.
const NAMESPACES_MAX: usize = 1024;
/// Longest value that may be a file's name.
const NAME_BYTES_MAX: usize = 512;
/// Longest extension of a file's name.
const EXTENSION_BYTES_MAX: usize = 8;

/// Whether a file of an unknown extension is XML.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).starts_with(b"<?xml")
}

pub(super) fn extract(found: &mut Found<'_>) {
    let bytes = found.bytes();
    if bytes.len() > TEXT_BYTES_MAX || !is_harmless(bytes) {
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A document type without entities of its own, as many SVG files have, can expand nothing.
    let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let Ok(document) = Document::parse_with_options(text, options) else { return };
    for node in document.descendants() {
        for attribute in node.attributes() {
            let (value, at) = (attribute.value(), Some(attribute.range().start));
            // What is made beside a file is named by a label behind it.
            let name = value.rsplit_once('#').map_or(value, |(name, _)| name);
            if looks_like_a_file(name) {
                found.file(name, at, false);
                if name.len() < value.len() {
                    found.file(value, at, false);
                }
            }
        }
    }
}

/// Whether the parser's time and memory for it grow with its length alone.
fn is_harmless(bytes: &[u8]) -> bool {
    if memmem::find(bytes, b"<!ENTITY").is_some() {
        return false;
    }
    if memmem::find_iter(bytes, b"xmlns").take(NAMESPACES_MAX + 1).count() > NAMESPACES_MAX {
        return false;
    }
    let mut attributes = 0;
    memchr2_iter(b'<', b'=', bytes).all(|at| {
        attributes = if bytes[at] == b'<' { 0 } else { attributes + 1 };
        attributes <= ATTRIBUTES_MAX
    })
}

/// A name with an extension that begins with a letter, so that `0.5` and `2.5em` are none, and nothing that no file
/// name has.
fn looks_like_a_file(value: &str) -> bool {
    if value.len() > NAME_BYTES_MAX {
        return false;
    }
    let Some((stem, extension)) = value.rsplit_once('.') else { return false };
    let odd =
        |byte: u8| byte.is_ascii_control() || matches!(byte, b'<' | b'>' | b'"' | b'|' | b'*' | b'?' | b'=' | b';');
    (1..=EXTENSION_BYTES_MAX).contains(&extension.len())
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && (extension.as_bytes()[0].is_ascii_alphabetic() || extension.eq_ignore_ascii_case("3ds"))
        && !matches!(stem.as_bytes().last(), None | Some(b'/' | b'\\' | b' ' | b'.'))
        && !value.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;
    use super::super::references;
    use crate::ids::AssetPath;

    #[test]
    fn attributes_that_look_like_files_are_named_and_not_required() {
        let text = "<?xml version=\"1.0\"?>\n<scene version=\"1.0\">\n <object model='Mesh.001.spm' xyz=\"0.5 1.0 2.0\" \
            file=\"../music/a b.ogg\"/>\n <link url=\"https://a.b/c.png\" text=\"Well... then. Go\" x=\"a/.hidden\" y=\"1.5e\" d=\"M1.5,2.25z\" m=\"a.3ds\"/>\n\
            <image href='gui\\icons\\x.PNG' z='C:\\x.png' w=\"mesh.001.spm;b.png\"/>\n</scene>";
        let expected = ["3 t/Mesh.001.spm?", "3 music/a b.ogg?", "4 t/a.3ds?", "5 t/gui/icons/x.PNG?"];
        assert_eq!(shown("t/scene.xml", text), expected);
    }

    #[test]
    fn what_is_made_beside_a_file_is_named_with_it() {
        let text = "<scene>\n <object model='../hall.gltf#mesh/0' tint='#fff'/>\n <use href='#icon'/>\n</scene>";
        assert_eq!(shown("t/scene.xml", text), ["2 hall.gltf?", "2 hall.gltf#mesh/0?"]);
    }

    #[test]
    fn xml_is_known_by_its_first_bytes_too() {
        assert_eq!(shown("a.challenge", "<?xml version='1.0'?><a b='c.png'/>"), ["1 c.png?"]);
        assert_eq!(shown("music", "\u{feff}<?xml version='1.0'?><a b='c.png'/>"), ["1 c.png?"]);
        assert_eq!(shown("a.challenge", "<a b='c.png'/>"), [""; 0]);
    }

    #[test]
    fn a_document_type_is_read_past_and_entities_are_not_expanded() {
        let svg = "<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"http://www.w3.org/svg11.dtd\">\n<svg><image href=\"a.png\"/></svg>";
        assert_eq!(shown("a.svg", svg), ["2 a.png?"]);
        let bomb = "<!DOCTYPE a [<!ENTITY b \"x.png\">]><a c=\"&b;\" d=\"e.png\"/>";
        assert_eq!(shown("a.xml", bomb), [""; 0]);
    }

    #[test]
    fn what_is_built_to_exhaust_the_parser_names_nothing() {
        let path = AssetPath::new("a.xml").unwrap();
        let deep = ["<a>".repeat(1 << 18), "</a>".repeat(1 << 18)].concat();
        let wide = format!("<a {}/>", (0..100_000).map(|number| format!("a{number}='b.png' ")).collect::<String>());
        let many: String = (0..60_000).map(|number| format!("<a xmlns:n{number}='u{number}'>")).collect();
        let nodes = format!("<a>{}</a>", "<b/>".repeat(1 << 21));
        for text in [deep, wide, many, nodes, "<a b='c.png'>".into(), "<".into(), String::new()] {
            assert_eq!(references(&path, text.as_bytes()), [], "{}", &text[..text.len().min(20)]);
        }
    }
}
