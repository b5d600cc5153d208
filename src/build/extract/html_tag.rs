//! One HTML tag: its name and its attributes, without a copy.

use memchr::memchr;

/// The attributes of a tag, from behind its name to its `>`.
pub(super) struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One attribute.
pub(super) struct Attribute<'a> {
    /// As written.
    pub(super) name: &'a [u8],
    /// As written, without quotes; empty when there is none.
    pub(super) value: &'a [u8],
    /// Where the value starts in the file.
    pub(super) at: usize,
}

impl<'a> Attributes<'a> {
    /// The attributes of the tag whose name ends at `at`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// After the tag, once there are no more attributes.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    fn skip(&mut self, skipped: impl Fn(&u8) -> bool) -> usize {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|byte| !skipped(byte)).unwrap_or(rest.len());
        self.at
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let bytes = self.bytes;
        let start = self.skip(|byte| byte.is_ascii_whitespace() || *byte == b'/');
        if bytes.get(start).is_none_or(|byte| *byte == b'>') {
            self.at = (start + 1).min(bytes.len());
            return None;
        }
        // A name may begin with `=`, so that the scan always goes on.
        self.at += 1;
        let end = self.skip(|byte| !(byte.is_ascii_whitespace() || matches!(byte, b'=' | b'/' | b'>')));
        let name = &bytes[start..end];
        let after = self.skip(u8::is_ascii_whitespace);
        if bytes.get(after) != Some(&b'=') {
            return Some(Attribute { name, value: b"", at: after });
        }
        self.at += 1;
        let start = self.skip(u8::is_ascii_whitespace);
        let (start, end) = match bytes.get(start) {
            Some(quote @ (b'"' | b'\'')) => {
                let end = memchr(*quote, &bytes[start + 1..]).map_or(bytes.len(), |len| start + 1 + len);
                self.at = (end + 1).min(bytes.len());
                (start + 1, end)
            }
            _ => {
                let end = self.skip(|byte| !(byte.is_ascii_whitespace() || *byte == b'>'));
                (start, end)
            }
        };
        Some(Attribute { name, value: &bytes[start..end], at: start })
    }
}

/// The value of an attribute with the few entities resolved that occur in references.
pub(super) fn without_entities(value: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    const ENTITIES: [(&[u8], u8); 8] = [
        (b"&amp;", b'&'),
        (b"&quot;", b'"'),
        (b"&apos;", b'\''),
        (b"&#39;", b'\''),
        (b"&#x27;", b'\''),
        (b"&#34;", b'"'),
        (b"&lt;", b'<'),
        (b"&gt;", b'>'),
    ];
    let Some(first) = memchr(b'&', value) else { return value.into() };
    let mut plain = value[..first].to_vec();
    let mut rest = &value[first..];
    while let Some(byte) = rest.first() {
        let entity = ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity));
        let (character, len) = entity.map_or((*byte, 1), |(entity, character)| (*character, entity.len()));
        plain.push(character);
        rest = &rest[len..];
    }
    plain.into()
}

/// Where the next `</name` is in `bytes` at or after `from`, in any case; the end of `bytes` when there is none.
pub(super) fn close_of(bytes: &[u8], from: usize, name: &[u8]) -> usize {
    let mut at = from.min(bytes.len());
    while let Some(hit) = memchr(b'<', &bytes[at..]) {
        let start = at + hit;
        if let Some(tag) = bytes.get(start + 2..start + 2 + name.len())
            && bytes[start + 1] == b'/'
            && tag.eq_ignore_ascii_case(name)
        {
            return start;
        }
        at = start + 1;
    }
    bytes.len()
}
