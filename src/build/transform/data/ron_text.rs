//! RON: checked by `ron`, then copied token by token without comments and white space.

use ron::error::SpannedError;
use serde::de::IgnoredAny;

use super::super::text::Fault;
use super::Node;

/// RON without comments and white space between tokens.
pub(super) fn minify(text: &str) -> Result<Vec<u8>, Fault> {
    ron::from_str::<IgnoredAny>(text).map_err(|error| fault(&error))?;
    let mut into: Vec<u8> = Vec::with_capacity(text.len());
    for token in Tokens::of(text) {
        let raw = &text.as_bytes()[token.start..token.end];
        // Two words need one space between them.
        if token.spaced && into.last().is_some_and(|last| is_word(*last)) && is_word(raw[0]) {
            into.push(b' ');
        }
        into.extend_from_slice(raw);
    }
    Ok(into)
}

/// The values of a RON text that names no types: which of the names are those of structs and which of variants, the
/// text alone does not say.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let node = ron::from_str::<Node>(text).map_err(|error| fault(&error))?;
    no_names(text)?;
    Ok(node)
}

fn fault(error: &SpannedError) -> Fault {
    // From the end of what was read well to what is wrong.
    Fault::placed(error.span.end.line, error.span.end.col, error.code.to_string())
}

/// Refuses the first name of a struct or a variant.
fn no_names(text: &str) -> Result<(), Fault> {
    const VALUES: [&str; 11] =
        ["true", "false", "Some", "None", "inf", "inff32", "inff64", "NaN", "NaNf32", "NaNf64", "_"];
    let mut tokens = Tokens::of(text).peekable();
    // Open brackets, to tell the fields of a struct from the keys of a map.
    let mut open = Vec::new();
    let mut in_attribute = false;
    while let Some(token) = tokens.next() {
        let raw = &text[token.start..token.end];
        match raw.as_bytes()[0] {
            b'#' => in_attribute = true,
            byte @ (b'(' | b'[' | b'{') => open.push(byte),
            b')' | b'}' => drop(open.pop()),
            b']' => {
                open.pop();
                in_attribute = in_attribute && !open.is_empty();
            }
            first if token.is_word && !in_attribute && !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.') => {
                let colon = tokens.peek().is_some_and(|next| text.as_bytes()[next.start] == b':');
                let field = colon && open.last() == Some(&b'(');
                if !field && !VALUES.contains(&raw) {
                    let cause = format!("only RON can name types: '{raw}'");
                    return Err(Fault::at(text, token.start, cause));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A piece of a RON text that is neither white space nor a comment.
struct Token {
    start: usize,
    end: usize,
    /// An identifier or a number, and no string.
    is_word: bool,
    /// Whether something that means nothing stood before it.
    spaced: bool,
}

/// Cuts a RON text that is known to be valid. Of another one it makes some pieces, and ends.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Over white space and comments; whether there were any.
    fn skip(&mut self) -> bool {
        let before = self.at;
        loop {
            let rest = &self.text[self.at..];
            // Unicode's `Pattern_White_Space`, which the format goes by, is this and two marks of direction.
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}'));
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += memchr::memchr(b'\n', trimmed.as_bytes()).unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                self.at += block_comment(trimmed.as_bytes());
            } else {
                return self.at > before;
            }
        }
    }

    /// The length of the token that `rest` begins with, and whether it is a word.
    fn length(rest: &str) -> (usize, bool) {
        let bytes = rest.as_bytes();
        let word = rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len());
        let quoted = |from: usize, quote: u8| quoted(bytes, from, quote);
        match (bytes[0], bytes.get(word)) {
            (b'"', _) => (quoted(1, b'"'), false),
            (b'\'', _) => (quoted(1, b'\''), false),
            (_, Some(b'"')) if &rest[..word] == "b" => (quoted(2, b'"'), false),
            (_, Some(b'\'')) if &rest[..word] == "b" => (quoted(2, b'\''), false),
            (_, Some(b'"' | b'#')) if matches!(&rest[..word], "r" | "br") => {
                let hashes = bytes[word..].iter().take_while(|byte| **byte == b'#').count();
                if bytes.get(word + hashes) != Some(&b'"') {
                    // A raw identifier.
                    let name = &rest[word + hashes..];
                    return (word + hashes + name.find(|c: char| !is_word_char(c)).unwrap_or(name.len()), true);
                }
                let close = format!("\"{}", "#".repeat(hashes));
                let body = word + hashes + 1;
                (rest[body..].find(&close).map_or(rest.len(), |at| body + at + close.len()), false)
            }
            _ if word > 0 => (word, true),
            _ => (rest.chars().next().map_or(1, char::len_utf8), false),
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let spaced = self.skip();
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let (len, is_word) = Self::length(rest);
        let start = self.at;
        self.at += len;
        Some(Token { start, end: self.at, is_word, spaced })
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || matches!(byte, b'_' | b'.' | b'+' | b'-')
}

/// The end of a quoted piece whose body begins at `from`, after its closing quote.
fn quoted(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            // Also of a quote after a backslash both bytes are ASCII: the cut is between characters.
            b'\\' if bytes.get(at + 1).is_some_and(u8::is_ascii) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of the comment that `bytes` begins with. Comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_means_nothing_goes() {
        let check = |text: &str, expected: &str| {
            assert_eq!(String::from_utf8(minify(text).unwrap()).unwrap(), expected);
        };
        check(
            "// top\n#![enable(implicit_some)]\nScene (\n  name : \"a  \\\" // b\", /* x /* y */ z */\n  at: ( 1.50 , -2 ),\n)\n",
            "#![enable(implicit_some)]Scene(name:\"a  \\\" // b\",at:(1.50,-2),)",
        );
        check("[ 'a' , '\\'' , r#\"x \" // y\"# , r#type , b\"z\" ]", "['a','\\'',r#\"x \" // y\"#,r#type,b\"z\"]");
        check("{ \"k\" : Foo ( 1 , ) }", "{\"k\":Foo(1,)}");
    }

    #[test]
    fn fields_are_no_names_of_types() {
        let check = |text: &str, expected: Option<&str>| {
            let said = no_names(text).err().map(|fault| format!("{:?} {}", fault.place.unwrap(), fault.cause));
            assert_eq!(said.as_deref(), expected, "{text}");
        };
        check("#![enable(implicit_some)] (a: 1, r#type: [true, None, Some(1.5), -inf], c: {\"x\": 'y'})", None);
        check("{a: 1}", Some("(1, 2) only RON can name types: 'a'"));
        check("(a: Foo)", Some("(1, 5) only RON can name types: 'Foo'"));
        check("[Foo(1)]", Some("(1, 2) only RON can name types: 'Foo'"));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(Into::into),
            "[ -~\n\té\"'\\\\]{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[ -~]{0,6}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_means_the_same_and_a_second_run_changes_nothing(value in json()) {
            let pretty = ron::ser::to_string_pretty(&value, ron::ser::PrettyConfig::default()).unwrap();
            let once = String::from_utf8(minify(&pretty).unwrap()).unwrap();
            prop_assert_eq!(read(&once).unwrap(), read(&pretty).unwrap());
            prop_assert_eq!(minify(&once).unwrap(), once.into_bytes());
        }

        #[test]
        fn hostile_text_does_not_panic(text in "[()\\[\\]{}\"'#rb/*a1 .:,\n\\\\é-]{0,40}") {
            let _ = (minify(&text), read(&text), no_names(&text), Tokens::of(&text).count());
        }
    }
}
