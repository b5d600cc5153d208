//! CSS: `url(…)` and `@import "…"`, outside comments.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::{memchr, memmem};

use super::found::Found;
use super::marks::Marks;

/// Longest reference that is read; embedded data is longer, and no reference.
const URL_BYTES_MAX: usize = 8 << 10;

/// What is worth a look. `Url(` and the like are not seen: nobody writes them.
static MARKS: LazyLock<Marks> = LazyLock::new(|| Marks::new(&["url(", "URL(", "@import", "@IMPORT", "/*"]));

/// Reads the part of the file within `range` as CSS.
pub(super) fn extract(found: &mut Found<'_>, range: Range<usize>) {
    let bytes = found.bytes();
    let css = &bytes[range.clone()];
    each(css, &mut |url, at| found.url(url, Some(range.start + at)));
}

/// Hands each reference to `found`, and where in `css` it stands.
pub(super) fn each(css: &[u8], found: &mut dyn FnMut(&[u8], usize)) {
    let mut at = 0;
    while let Some(mark) = MARKS.find(css, at) {
        at = mark.end;
        match css[mark.start] {
            b'/' => at = memmem::find(&css[at..], b"*/").map_or(css.len(), |len| at + len + 2),
            b'@' => {
                let start = at + blanks(&css[at..]);
                if let Some((url, end)) = quoted(css, start) {
                    found(&unescaped(url), start);
                    at = end;
                }
            }
            // Part of a longer name, such as `curl(`.
            _ if mark.start > 0 && is_name(css[mark.start - 1]) => {}
            _ => {
                let start = at + blanks(&css[at..]);
                if let Some((url, end)) = quoted(css, start).or_else(|| plain(css, start)) {
                    found(&unescaped(url), start);
                    at = end;
                }
            }
        }
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || !byte.is_ascii()
}

fn blanks(text: &[u8]) -> usize {
    text.len() - text.trim_ascii_start().len()
}

/// The part of `css` from `start` that a reference may take.
fn window(css: &[u8], start: usize) -> &[u8] {
    &css[start.min(css.len())..css.len().min(start.saturating_add(URL_BYTES_MAX))]
}

/// A string with quotes at `start`, and where it ends.
fn quoted(css: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let quote = *css.get(start).filter(|byte| matches!(byte, b'"' | b'\''))?;
    let text = window(css, start + 1);
    let mut at = 0;
    while let Some(hit) = memchr(quote, &text[at..]) {
        let escapes = text[..at + hit].iter().rev().take_while(|byte| **byte == b'\\').count();
        if escapes.is_multiple_of(2) {
            let url = &text[..at + hit];
            // A string ends at the end of its line.
            return memchr(b'\n', url).is_none().then_some((url, start + 1 + at + hit + 1));
        }
        at += hit + 1;
    }
    None
}

/// A reference without quotes at `start`, up to the closing bracket.
fn plain(css: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let text = window(css, start);
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b')' => return Some((&text[..at], start + at + 1)),
            // Only before the bracket.
            byte if byte.is_ascii_whitespace() => {
                let blanks = blanks(&text[at..]);
                return (text.get(at + blanks) == Some(&b')')).then_some((&text[..at], start + at + blanks + 1));
            }
            b'"' | b'\'' | b'(' | b'<' | b'{' => return None,
            _ => at += 1,
        }
    }
}

/// Without the backslashes of CSS: up to six hexadecimal digits, or the character itself.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' {
            plain.push(text[at]);
            at += 1;
            continue;
        }
        let digits = &text[at + 1..text.len().min(at + 7)];
        let len = digits.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if len == 0 {
            plain.extend(text.get(at + 1));
            at += 2;
            continue;
        }
        let code = digits[..len].iter().fold(0, |code, digit| code * 16 + (*digit as char).to_digit(16).unwrap_or(0));
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += 1 + len;
        // One blank ends the digits and belongs to them.
        at += usize::from(text.get(at).is_some_and(u8::is_ascii_whitespace));
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;

    #[test]
    fn urls_and_imports_are_named_and_comments_are_not() {
        let text = "@import \"base.css\";\n@import url(theme.css) screen;\n/* url(no.png) @import 'no.css' */\n\
            a { background: URL( 'img/a b.png' ) } b { src: url(../f/x.woff2?#iefix) format(\"woff2\"),\n\
            url(data:font/woff;base64,AA) } c { fill: url(#g); x: curl(no.png) }\n\
            d { background: url( plain.png ) url(a\\ b.png) url(\"q\\22.png\") url('\\65 f.png') }\n\
            e { background: url(https://a/b.png) url(unclosed.png";
        let expected = [
            "1 css/base.css",
            "2 css/theme.css",
            "4 css/img/a b.png",
            "4 f/x.woff2",
            "6 css/plain.png",
            "6 css/a b.png",
            "6 css/q\".png",
            "6 css/ef.png",
        ];
        assert_eq!(shown("css/site.css", text), expected);
    }

    #[test]
    fn a_comment_or_a_string_that_never_closes_names_nothing() {
        for text in ["/* url(a.png)", "a { b: url(\"a.png) }", "@import 'a.css", "url(", "@import", "url('a\nb')"] {
            assert_eq!(shown("a.css", text), [""; 0], "{text}");
        }
    }
}
