//! Where in a JSON text the value of a path such as `meshes[0].primitives[1].indices` stands.
//!
//! The text is known to be JSON, so that tokens are skipped rather than checked.

/// The place of the value, or of the innermost one around it that there is.
pub(super) fn find(json: &[u8], path: &str) -> usize {
    let mut at = blank(json, 0);
    for step in Steps(path) {
        let Some(found) = (match step {
            Step::Item(index) => item(json, at, index),
            Step::Field(name) => field(json, at, name),
        }) else {
            break;
        };
        at = found;
    }
    at
}

enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// `a.b[3]["c"]`, as the validator writes it; perhaps with ` = value` at the end.
struct Steps<'a>(&'a str);

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let rest = self.0.strip_prefix('.').unwrap_or(self.0);
        if let Some(rest) = rest.strip_prefix("[\"") {
            let (name, rest) = rest.split_once("\"]")?;
            self.0 = rest;
            return Some(Step::Field(name));
        }
        if let Some(rest) = rest.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            self.0 = rest;
            return index.parse().ok().map(Step::Item);
        }
        let len = rest.find(['.', '[', ' ']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(len);
        self.0 = if rest.starts_with(' ') { "" } else { rest };
        (!name.is_empty()).then_some(Step::Field(name))
    }
}

/// After the white space at `at`.
fn blank(json: &[u8], at: usize) -> usize {
    let rest = json.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// After the value at `at`: of one with parts, after its last one.
fn skip(json: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    loop {
        match json.get(at) {
            None => return at,
            Some(b'"') => {
                at += 1;
                while let Some(byte) = json.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            Some(b',' | b'}' | b']') if depth == 0 => return at,
            Some(_) => at += 1,
        }
        if depth == 0 {
            let next = blank(json, at);
            if matches!(json.get(next), None | Some(b',' | b'}' | b']' | b':')) {
                return at;
            }
        }
    }
}

fn item(json: &[u8], at: usize, index: usize) -> Option<usize> {
    (json.get(at) == Some(&b'[')).then_some(())?;
    let mut at = blank(json, at + 1);
    for _ in 0..index {
        at = blank(json, skip(json, at));
        (json.get(at) == Some(&b',')).then_some(())?;
        at = blank(json, at + 1);
    }
    (json.get(at)? != &b']').then_some(at)
}

fn field(json: &[u8], at: usize, name: &str) -> Option<usize> {
    (json.get(at) == Some(&b'{')).then_some(())?;
    let mut at = blank(json, at + 1);
    loop {
        let end = skip(json, at);
        let key = serde_json::from_slice::<String>(json.get(at..end)?).ok()?;
        at = blank(json, end);
        (json.get(at) == Some(&b':')).then_some(())?;
        at = blank(json, at + 1);
        if key == name {
            return Some(at);
        }
        at = blank(json, skip(json, at));
        (json.get(at) == Some(&b',')).then_some(())?;
        at = blank(json, at + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_leads_to_its_value_or_to_what_is_around_it() {
        let json = br#" {"a" : [1, {"b":"x,]}\"", "c d": [ [], {} , -1.5e3 ]}, null], "e": {"POSITION": true}} "#;
        let check = |path: &str, expected: &str| {
            let at = find(json, path);
            assert!(json[at..].starts_with(expected.as_bytes()), "{path}: {}", String::from_utf8_lossy(&json[at..]));
        };
        check("", "{\"a\"");
        check("a", "[1,");
        check("a[0]", "1,");
        check("a[1].b", "\"x,");
        check("a[1][\"c d\"][2]", "-1.5e3");
        check("a[1][\"c d\"][1]", "{}");
        check("a[2]", "null");
        check("a[3]", "[1,");
        check("a[1].missing.more", "{\"b\"");
        check("e[\"POSITION\"] = \"x\"", "true");
        check("e = \"x\"", "{\"POSITION\"");
        check("e[0]", "{\"POSITION\"");
    }

    proptest! {
        #[test]
        fn what_is_no_json_is_looked_at_without_harm(
            json in prop::collection::vec(prop::sample::select(b" {}[]\"\\:,a1".to_vec()), 0..40),
            path in "(a|\\.|\\[|\\]|1|\"| ){0,12}",
        ) {
            assert!(find(&json, &path) <= json.len());
        }
    }
}
