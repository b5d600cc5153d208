//! Shaders: `#include "file"`, and what engines made of it: `#import "file"`, `#engine_include "file"`.
//!
//! Names are resolved against the including file's folder, as compilers do. `<file>` is looked up in folders that
//! only the compiler knows, and so is what an engine's own directive names: both count only if there is such a file.

use memchr::{memchr, memchr2, memmem};

use super::found::Found;

/// Longest line that is read for a directive.
const DIRECTIVE_BYTES_MAX: usize = 4096;

pub(super) fn extract(found: &mut Found<'_>) {
    let bytes = found.bytes();
    let mut at = 0;
    while let Some(hit) = memchr2(b'#', b'/', &bytes[at..]) {
        let start = at + hit;
        at = match (bytes[start], bytes.get(start + 1)) {
            (b'/', Some(b'/')) => memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |len| start + len),
            (b'/', Some(b'*')) => memmem::find(&bytes[start + 2..], b"*/").map_or(bytes.len(), |len| start + len + 4),
            (b'#', _) if begins_a_line(&bytes[..start]) => {
                let line = &bytes[start..bytes.len().min(start + DIRECTIVE_BYTES_MAX)];
                let line = memchr2(b'\n', b'\r', line).map_or(line, |len| &line[..len]);
                if let Some((name, required)) = directive(line) {
                    found.file(name, Some(start), required);
                }
                // A comment may begin in the same line.
                start + 1
            }
            _ => start + 1,
        };
    }
}

/// Whether only blanks stand between the start of the line and its end.
fn begins_a_line(before: &[u8]) -> bool {
    let blank = before.iter().rev().take(DIRECTIVE_BYTES_MAX).find(|byte| !matches!(byte, b' ' | b'\t'));
    blank.is_none_or(|byte| matches!(byte, b'\n' | b'\r'))
}

/// The file that a line such as `#include "file"` names, and whether it is required.
fn directive(line: &[u8]) -> Option<(&str, bool)> {
    let rest = line[1..].trim_ascii_start();
    let len = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).unwrap_or(rest.len());
    let (word, rest) = rest.split_at(len);
    let standard = matches!(word, b"include" | b"import" | b"include_next");
    if !standard && !word.ends_with(b"_include") && !word.ends_with(b"_import") {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let close = match rest.first()? {
        b'"' => b'"',
        b'<' => b'>',
        b'\'' => b'\'',
        _ => return None,
    };
    let name = &rest[1..];
    let name = std::str::from_utf8(&name[..memchr(close, name)?]).ok()?;
    Some((name.trim(), standard && close != b'>'))
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;

    #[test]
    fn includes_are_named_and_comments_are_not() {
        let text = "#version 450\n#include \"common.glsl\"\n  # include \"../lib/light.glsl\" // \"no.glsl\"\n\
            #include <system.glsl>\n// #include \"no.glsl\"\n/* #include \"no.glsl\"\n#include \"no.glsl\"\n*/\n\
            #import \"noise.wgsl\"\n#import bevy_pbr::forward_io\n#stk_include \"utils/x.frag\"\n\
            float a; #include \"no.glsl\"\n#include \"unclosed.glsl\n#define include \"no.glsl\"\n#include";
        let expected = [
            "2 shaders/common.glsl",
            "3 lib/light.glsl",
            "4 shaders/system.glsl?",
            "9 shaders/noise.wgsl",
            "11 shaders/utils/x.frag?",
        ];
        assert_eq!(shown("shaders/main.frag", text), expected);
    }

    #[test]
    fn a_comment_that_never_closes_hides_the_rest() {
        assert_eq!(shown("a.hlsl", "/* \n#include \"a.h\"\n"), [""; 0]);
        assert_eq!(shown("a.hlsl", "/*/\n#include \"a.h\"\n*/ \n#include \"b.h\""), ["4 b.h"]);
        assert_eq!(shown("a.hlsl", "a / b\r#include \"c.h\" /* \n#include \"a.h\""), ["1 c.h"]);
    }
}
