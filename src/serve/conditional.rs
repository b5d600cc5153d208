//! Conditional requests and ranges, as RFC 9110 has them (sections 13 and 14). Pure: headers in, decisions out.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::traffic::Encoding;

/// Whether a request is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Carry it out.
    Proceed,
    /// The client has this very content: 304.
    NotModified,
    /// The client wanted another content: 412.
    Failed,
}

/// Which part is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: no range, several, one that cannot be read, or one of another content.
    Whole,
    /// These bytes; never empty.
    Bytes(Range<u64>),
    /// Bytes beyond the end: 416.
    Beyond,
}

/// What the preconditions say about content tagged `etag` (a strong tag with its quotes).
pub(super) fn condition(headers: &HeaderMap, etag: &str) -> Condition {
    if headers.contains_key(IF_MATCH) && !any(headers, IF_MATCH, |tag| tag == etag) {
        return Condition::Failed;
    }
    // A weak comparison: `W/` does not matter.
    if any(headers, IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag) {
        return Condition::NotModified;
    }
    Condition::Proceed
}

/// The part of `len` bytes tagged `etag` that is asked for.
pub(super) fn part(headers: &HeaderMap, etag: &str, len: u64) -> Part {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(range), None) = (values.next(), values.next()) else { return Part::Whole };
    // The range holds only for the content that the client has; dates are not known here, so they never match.
    if headers.get(IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) {
        return Part::Whole;
    }
    range.to_str().ok().and_then(|range| parse_range(range, len)).unwrap_or(Part::Whole)
}

/// The codings that the client would rather have than the bytes as they are (section 12.5.3), the most wanted first: it
/// names them, and does not name `identity` with more weight. A `*` alone does not do, since what sends it may not mean
/// these codings.
pub(super) fn codings(headers: &HeaderMap) -> Codings {
    let (mut weights, mut identity) = ([0; 3], 0);
    for text in headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok()) {
        for member in text.split(',') {
            let (coding, weight) = member.split_once(';').unwrap_or((member, "q=1"));
            let Some(weight) = thousandths(weight) else { continue };
            let coding = coding.trim();
            // Section 8.4.1.3: an older name of the same.
            let coding = if coding.eq_ignore_ascii_case("x-gzip") { Encoding::Gzip.name() } else { coding };
            if let Some(at) = Encoding::CODED.iter().position(|known| coding.eq_ignore_ascii_case(known.name())) {
                weights[at] = weight;
            } else if coding.eq_ignore_ascii_case(Encoding::Identity.name()) {
                identity = weight;
            }
        }
    }
    let mut wanted = [None; 3];
    // Of equal weights the first stays first.
    for (coding, weight) in Encoding::CODED.into_iter().zip(weights) {
        if weight > 0 && weight >= identity {
            let heavier = wanted.iter().flatten().take_while(|(_, other)| *other >= weight).count();
            wanted[heavier..].rotate_right(1);
            wanted[heavier] = Some((coding, weight));
        }
    }
    Codings(wanted.map(|coding| coding.map(|(coding, _)| coding)))
}

/// Codings that a client takes, the most wanted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codings([Option<Encoding>; 3]);

impl Codings {
    pub fn iter(self) -> impl Iterator<Item = Encoding> {
        self.0.into_iter().flatten()
    }

    pub fn is_empty(self) -> bool {
        self.0[0].is_none()
    }
}

/// A weight such as `q=0.25`, in thousandths. `None` when it is not one.
fn thousandths(weight: &str) -> Option<u32> {
    let (name, value) = weight.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, parts) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    if parts.len() > 3 || !parts.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let parts: u32 = format!("{parts:0<3}").parse().ok()?;
    match whole {
        "0" => Some(parts),
        "1" if parts == 0 => Some(1000),
        _ => None,
    }
}

/// `None` when it is not a single range of bytes.
fn parse_range(text: &str, len: u64) -> Option<Part> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", count) => len.saturating_sub(number(count)?)..len,
        (first, "") => number(first)?..len,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(len)
        }
    };
    Some(if range.is_empty() { Part::Beyond } else { Part::Bytes(range) })
}

fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than a number holds are a position beyond any end.
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether `*` or a tag that `wanted` accepts stands in any header of that name.
fn any(headers: &HeaderMap, name: HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.into_iter().any(|text| text.trim() == "*" || Tags(text).any(&wanted))
}

/// The entity tags of a list, with their quotes and `W/`. Ends at what is not one.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start_matches([',', ' ', '\t']);
        let open = if rest.starts_with("W/\"") { 3 } else { 1 };
        if open == 1 && !rest.starts_with('"') {
            return None;
        }
        let end = open + rest[open..].find('"')? + 1;
        let (tag, after) = rest.split_at(end);
        self.0 = after;
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const TAG: &str = "\"abc\"";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_tag_is_compared_weakly_when_it_must_not_match_and_strongly_when_it_must() {
        let check = |pairs: &[(HeaderName, &str)], expected| {
            assert_eq!(condition(&headers(pairs), TAG), expected, "{pairs:?}");
        };
        check(&[], Condition::Proceed);
        for same in ["\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\"", "W/\"x,\" , W/\"abc\"", ",\"abc\""] {
            check(&[(IF_NONE_MATCH, same)], Condition::NotModified);
        }
        for other in ["\"x\"", "abc", "", "\"abc", "W/abc", "w/\"abc\""] {
            check(&[(IF_NONE_MATCH, other)], Condition::Proceed);
        }
        check(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")], Condition::NotModified);
        check(&[(IF_MATCH, "\"abc\"")], Condition::Proceed);
        check(&[(IF_MATCH, "*")], Condition::Proceed);
        check(&[(IF_MATCH, "W/\"abc\"")], Condition::Failed);
        check(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")], Condition::Failed);
    }

    #[test]
    fn a_coding_is_sent_to_who_names_it_and_wants_it_no_less_than_plain_bytes() {
        let takes = |pairs: &[&str]| {
            let headers = headers(&pairs.iter().map(|value| (ACCEPT_ENCODING, *value)).collect::<Vec<_>>());
            codings(&headers).iter().map(Encoding::name).collect::<Vec<_>>().join(" ")
        };
        for (accepted, wanted) in [
            ("zstd", "zstd"),
            ("ZSTD", "zstd"),
            ("gzip, deflate, br, zstd", "br zstd gzip"),
            ("zstd;q=0.001", "zstd"),
            ("zstd ; Q=1.000", "zstd"),
            ("gzip;q=1.0, zstd; q=0.5, *;q=0", "gzip zstd"),
            ("gzip;q=0.8, br;q=0.2, zstd;q=0.8", "zstd gzip br"),
            ("x-gzip", "gzip"),
            ("br;q=0.3, gzip;q=0.6, identity;q=0.5", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("identity;q=0.5, zstd;q=0.5", "zstd"),
            ("identity;q=0,zstd;q=1", "zstd"),
            ("", ""),
            ("deflate, compress", ""),
            ("*", ""),
            ("identity", ""),
            ("zstd;q=0", ""),
            ("zstd;q=0.000", ""),
            ("zstd;q=0.0001", ""),
            ("zstd;q=1.1", ""),
            ("zstd;q=", ""),
            ("zstd;level=3", ""),
            ("zstd;q=0.4, identity;q=0.5", ""),
            ("xzstd", ""),
        ] {
            assert_eq!(takes(&[accepted]), wanted, "{accepted}");
        }
        assert_eq!((takes(&[]).as_str(), takes(&["gzip", "zstd"]).as_str()), ("", "zstd gzip"));
    }

    #[test]
    fn a_single_range_is_cut_to_the_end_and_what_cannot_be_read_is_ignored() {
        let check = |range: &str, expected: Part| {
            assert_eq!(part(&headers(&[(RANGE, range)]), TAG, 10), expected, "{range}");
        };
        check("bytes=0-3", Part::Bytes(0..4));
        check("bytes=4-", Part::Bytes(4..10));
        check("bytes=-3", Part::Bytes(7..10));
        check("bytes=-30", Part::Bytes(0..10));
        check("bytes=9-99999999999999999999999", Part::Bytes(9..10));
        check("Bytes = 1-1", Part::Bytes(1..2));
        check("bytes=10-", Part::Beyond);
        check("bytes=10-12", Part::Beyond);
        check("bytes=-0", Part::Beyond);
        for ignored in ["bytes=3-2", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "bytes=-", "bytes", "bytes=+1-2"] {
            check(ignored, Part::Whole);
        }
        assert_eq!(part(&headers(&[(RANGE, "bytes=0-")]), TAG, 0), Part::Beyond);
        assert_eq!(part(&headers(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")]), TAG, 10), Part::Whole);
    }

    #[test]
    fn a_range_of_another_content_is_the_whole_of_this_one() {
        let ranged = |tag: &str| part(&headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, tag)]), TAG, 10);
        assert_eq!(ranged("\"abc\""), Part::Bytes(0..1));
        for other in ["\"x\"", "W/\"abc\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(ranged(other), Part::Whole);
        }
    }
}
