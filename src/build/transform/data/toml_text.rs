//! TOML: checked by `toml`, then copied token by token, as `toml` itself cuts it, without what means nothing.

use toml::Table;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::super::text::Fault;
use super::Node;

/// TOML without comments, blank lines and white space between tokens.
pub(super) fn minify(text: &str) -> Result<Vec<u8>, Fault> {
    toml::from_str::<Table>(text).map_err(|error| fault(text, &error))?;
    let mut into: Vec<u8> = Vec::with_capacity(text.len());
    // Within brackets a line end is white space like any other.
    let mut depth = 0_usize;
    let mut last = TokenKind::Newline;
    let mut spaced = false;
    for token in Source::new(text).lex() {
        let kind = token.kind();
        match kind {
            TokenKind::Whitespace => {
                spaced = true;
                continue;
            }
            TokenKind::Newline if depth > 0 || last == TokenKind::Newline => continue,
            TokenKind::Comment | TokenKind::Eof => continue,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        // The one place where a space means something: between a date and its time.
        if spaced && last == TokenKind::Atom && kind == TokenKind::Atom {
            into.push(b' ');
        }
        let span = token.span();
        into.extend_from_slice(match kind {
            TokenKind::Newline => b"\n",
            _ => text.as_bytes().get(span.start()..span.end()).unwrap_or_default(),
        });
        (last, spaced) = (kind, false);
    }
    Ok(into)
}

/// The values of a TOML text.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    toml::from_str(text).map_err(|error| fault(text, &error))
}

fn fault(text: &str, error: &toml::de::Error) -> Fault {
    Fault::at(text, error.span().map_or(0, |span| span.start), error.message())
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
            "# top\n\na = 1 # one\r\n\r\n[ t . \"x y\" ]\nb = [ 1 , # in\n 2,\n]\nc = { d = 1.50, e = '''x\n # y''' }\n",
            "a=1\n[t.\"x y\"]\nb=[1,2,]\nc={d=1.50,e='''x\n # y'''}\n",
        );
        check(
            "[[ p ]]\nwhen = 1979-05-27 07:32:00\n\n[[p]]\nat  =  07:32:00.5 # x",
            "[[p]]\nwhen=1979-05-27 07:32:00\n[[p]]\nat=07:32:00.5",
        );
        check("", "");
        check("# only\n", "");
    }

    fn value() -> impl Strategy<Value = toml::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(toml::Value::from),
            any::<i64>().prop_map(toml::Value::from),
            (-1e9..1e9_f64).prop_map(toml::Value::from),
            "[ -~\n\té\"']{0,12}".prop_map(toml::Value::from),
            Just(toml::Value::Datetime("1979-05-27T07:32:00.999-07:00".parse().unwrap())),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(toml::Value::from),
                prop::collection::btree_map("[ -~]{0,6}", inner, 0..5)
                    .prop_map(|map| toml::Value::Table(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_means_the_same_and_a_second_run_changes_nothing(
            table in prop::collection::btree_map("[a-z .\"#]{0,6}", value(), 0..6),
        ) {
            let table: Table = table.into_iter().collect();
            let pretty = toml::to_string_pretty(&table).unwrap();
            let once = String::from_utf8(minify(&pretty).unwrap()).unwrap();
            prop_assert_eq!(toml::from_str::<Table>(&once).unwrap(), table);
            prop_assert_eq!(minify(&once).unwrap(), once.into_bytes());
        }

        #[test]
        fn hostile_text_does_not_panic(text in ".{0,80}") {
            let _ = minify(&text);
            let _ = read(&text);
        }
    }
}
