//! `minify-json`: JSON without the white space between its tokens, and nothing else changed.
//!
//! The text is checked by `serde_json` against the grammar and then copied token by token as it was written, so that
//! keys keep their order, doubled keys stay, and no number or string is read and written anew: `1.10` and `1e400`
//! stay `1.10` and `1e400`.

use memchr::memchr2;
use serde::de::IgnoredAny;

use super::text::{Fault, utf8};
use super::{Context, Input, NoParameters, Output, Transform};
use crate::error::Result;

/// `minify-json`: drops white space between tokens. It takes no parameters.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinifyJson;

impl MinifyJson {
    /// Its name.
    pub const NAME: &'static str = "minify-json";
}

impl Transform for MinifyJson {
    type Parameters = NoParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn cached(&self) -> bool {
        false
    }

    fn run(&self, input: Input<'_>, _: &NoParameters, _context: &mut dyn Context) -> Result<Output> {
        let text = utf8(&input, Self::NAME)?;
        minify(text).map(Into::into).map_err(|fault| fault.of(&input, Self::NAME))
    }
}

/// JSON without the white space between its tokens.
pub(super) fn minify(text: &str) -> Result<Vec<u8>, Fault> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| fault(&error))?;
    Ok(strip(text.as_bytes()))
}

/// What the parser says, and where.
pub(super) fn fault(error: &serde_json::Error) -> Fault {
    let full = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    Fault::placed(error.line(), error.column(), full.strip_suffix(&position).unwrap_or(&full))
}

/// Copies JSON that is known to be valid without its white space.
fn strip(json: &[u8]) -> Vec<u8> {
    let mut into = Vec::with_capacity(json.len());
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'"' => {
                let end = string_end(json, at);
                into.extend_from_slice(&json[at..end]);
                at = end;
            }
            _ => {
                let rest = &json[at..];
                let plain = rest.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'"'));
                let len = plain.unwrap_or(rest.len());
                into.extend_from_slice(&rest[..len]);
                at += len;
            }
        }
    }
    into
}

/// The end of the string that starts at `start`, after its closing quote.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if json[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NoFiles;
    use super::*;
    use crate::ids::AssetPath;

    fn run(text: &[u8]) -> Result<Vec<u8>> {
        let path = AssetPath::new("data/a.json").unwrap();
        MinifyJson.run(Input { path: &path, bytes: text }, &NoParameters {}, &mut NoFiles).map(|output| output.bytes)
    }

    #[test]
    fn only_white_space_between_tokens_goes() {
        let check = |text: &str, expected: &str| {
            assert_eq!(String::from_utf8(run(text.as_bytes()).unwrap()).unwrap(), expected)
        };
        check(
            "{ \"b\" : 1.10 ,\n \"a\": [ 1e400, -0.0, 12345678901234567890123 ] }\n",
            r#"{"b":1.10,"a":[1e400,-0.0,12345678901234567890123]}"#,
        );
        check(r#" { "a b" : " x \" y \\" , "a b" : "\u0041 \/" } "#, r#"{"a b":" x \" y \\","a b":"\u0041 \/"}"#);
        check("\u{feff} [ ] ", "[]");
        check(" true ", "true");
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_line() {
        let check = |text: &[u8], expected: &str| assert_eq!(run(text).unwrap_err().to_string(), expected);
        check(b"{\n \"a\": 1,\n}", "data/a.json:3:1: minify-json: key must be a string");
        check(b"[1]\n[2]", "data/a.json:2:1: minify-json: trailing characters");
        check(b"[\n\"\xff\"]", "data/a.json:2: minify-json: it is not UTF-8");
        check(b"", "data/a.json:1:1: minify-json: EOF while parsing a value");
    }

    #[test]
    fn nesting_is_no_way_to_overflow_the_stack() {
        let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
        let _ = run(&deep);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_means_the_same_and_a_second_run_changes_nothing(value in json()) {
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let once = run(&pretty).unwrap();
            prop_assert_eq!(&once, &serde_json::to_vec(&value).unwrap());
            prop_assert_eq!(&run(&once).unwrap(), &once);
        }

        #[test]
        fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = run(&bytes);
            strip(&bytes);
        }
    }
}
