//! One source file with its comments and literals blanked and its tests cut, line by line as it was.

/// A file as the rules see it.
pub struct Source {
    /// The path from the project's root, with `/`.
    pub path: String,
    /// The text as written, by line.
    pub lines: Vec<String>,
    /// The same lines with comments and the insides of literals turned to spaces.
    pub code: Vec<String>,
    /// `code` without what is compiled for tests alone.
    pub shipped: Vec<String>,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub fn new(path: &str, text: &str) -> Self {
        let blanked = blank(text);
        let shipped = cut_tests(&blanked);
        let split = |text: &str| text.lines().map(str::to_owned).collect();
        Self { path: path.to_owned(), lines: split(text), code: split(&blanked), shipped: split(&shipped) }
    }

    /// The modules of other files that are declared here for tests alone: their paths without `.rs`.
    pub fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder,
            _ => self.path.trim_end_matches(".rs"),
        };
        let (code, shipped) = (self.code.join("\n"), self.shipped.join("\n"));
        positions(&code, "mod")
            .filter(|at| !shipped[*at..].starts_with("mod"))
            .filter_map(|at| code[at + 3..].split_once(';'))
            .map(|(name, _)| name.trim())
            .filter(|name| name.bytes().all(is_name))
            .map(|name| format!("{folder}/{name}"))
            .collect()
    }

    /// Takes the whole file for a part of the tests.
    pub fn belongs_to_tests(&mut self) {
        self.shipped.fill(String::new());
    }

    /// Where `needle` stands in `lines` as whole tokens, not as a part of a longer name: the line numbers, from 1.
    pub fn places(lines: &[String], needle: &str) -> Vec<usize> {
        let matches = |line: &String| positions(line, needle).next().is_some();
        lines.iter().enumerate().filter(|(_, line)| matches(line)).map(|(index, _)| index + 1).collect()
    }

    /// The fault `what` at `line`, as an editor understands it.
    pub fn fault(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The byte positions of `needle` in `text` where neither end continues a name.
pub fn positions<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let end = at + needle.len();
        let open = !is_name(needle.as_bytes()[0]) || at == 0 || !is_name(bytes[at - 1]);
        let close = !is_name(needle.as_bytes()[needle.len() - 1]) || end == bytes.len() || !is_name(bytes[end]);
        open && close
    })
}

/// Turns comments, the insides of strings and characters into spaces. Line breaks stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let begins_name = at == 0 || !is_name(bytes[at - 1]);
        // (the end of what is skipped, the part of it that is kept at its start)
        let (end, kept) = if rest.starts_with(b"//") {
            (at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with(b"/*") {
            (end_of_block_comment(bytes, at), 0)
        } else if rest[0] == b'"' {
            (end_of_quoted(bytes, at + 1, b'"'), 1)
        } else if let Some(end) = begins_name.then(|| end_of_raw_string(bytes, at)).flatten() {
            (end, 1)
        } else if rest[0] == b'\'' && is_character(rest) {
            (end_of_quoted(bytes, at + 1, b'\''), 1)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at + kept..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are blanked, since each end is at an ASCII byte")
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn end_of_quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"..."`, `r#"..."#`, `br"..."` and their like, if one begins here.
fn end_of_raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    if matches!(bytes[at], b'b' | b'c') {
        at += 1;
    }
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    at += 1 + hashes;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let inside = &bytes[at + 1..];
    let length = inside.windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| at + 1 + length + close.len()))
}

/// Whether a quote begins a character, not a lifetime or a label: `'a'` and `'\n'`, but not `'a`.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(&first) => {
            let width = match first {
                0x00..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                _ => 4,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        None => false,
    }
}

/// Blanks every item under `#[cfg(test)]`, `#[cfg(all(test, ...))]` or `#[test]` in already blanked text.
fn cut_tests(code: &str) -> String {
    if code.lines().any(|line| line.replace(' ', "") == "#![cfg(test)]") {
        return code.lines().map(|_| "\n").collect();
    }
    let bytes = code.as_bytes();
    let mut out = bytes.to_vec();
    for (start, _) in code.match_indices("#[") {
        let attribute_end = closing(bytes, start + 1);
        let attribute: String = code[start..attribute_end].chars().filter(|one| !one.is_whitespace()).collect();
        let is_test = attribute == "#[test]"
            || attribute.ends_with("::test]")
            || attribute.starts_with("#[cfg(test)")
            || attribute.starts_with("#[cfg(all(test,");
        if is_test {
            for byte in &mut out[start..end_of_item(bytes, attribute_end)] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
    }
    String::from_utf8(out).expect("items begin and end at ASCII bytes")
}

/// The position after the bracket that closes the one at `open`.
pub fn closing(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

/// The end of the item after an attribute: its closing brace, or the semicolon or comma of one that has no body.
fn end_of_item(bytes: &[u8], mut at: usize) -> usize {
    let mut generics = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => at = closing(bytes, at),
            b'{' => return closing(bytes, at),
            b';' => return at + 1,
            b',' if generics == 0 => return at + 1,
            b'<' => (at, generics) = (at + 1, generics + 1),
            b'>' if bytes[at - 1] != b'-' => (at, generics) = (at + 1, generics - 1),
            _ => at += 1,
        }
    }
    bytes.len()
}

#[test]
fn prose_and_literals_are_not_code() {
    let text = concat!(
        "let a = \"unsafe \\\" // no\"; // unsafe\n",
        "let b = r#\"unsafe \" unsafe\"#; /* unsafe /* unsafe */ unsafe */ let c = '\"';\n",
        "fn life<'a>(x: &'a str) -> char { '\\'' } let lamp = 'ü'; unsafe {}\n",
        "let bytes = br\"unsafe\"; let raw = r#unsafe;\n",
    );
    let source = Source::new("src/x.rs", text);
    assert_eq!(source.lines.len(), source.code.len());
    assert_eq!(Source::places(&source.code, "unsafe"), [3, 4]);
    assert!(source.code[2].contains("fn life<'a>(x: &'a str) -> char {"), "{}", source.code[2]);
}

#[test]
fn a_name_that_holds_another_is_not_it() {
    assert_eq!(positions("unsafe_code not_unsafe unsafe", "unsafe").collect::<Vec<_>>(), [23]);
    assert_eq!(positions("x.unwrap_or(1).unwrap()", ".unwrap()").collect::<Vec<_>>(), [14]);
}

#[test]
fn tests_are_cut_and_what_follows_them_is_not() {
    let text = "\
fn before() { a.unwrap() }
#[cfg(test)]
mod tests {
    fn inside() { b.unwrap() }
}
#[cfg(test)]
mod elsewhere;
#[cfg(all(test, unix))]
fn helper<A, B>(x: [u8; 2]) -> Vec<u8> { c.unwrap() }
#[cfg(not(test))]
fn after() { d.unwrap() }
";
    let source = Source::new("src/x.rs", text);
    assert_eq!(Source::places(&source.shipped, ".unwrap()"), [1, 11]);
    assert_eq!(Source::places(&source.shipped, "elsewhere"), [] as [usize; 0]);
    assert_eq!(source.test_modules(), ["src/x/elsewhere"]);
}
