//! HTML: what a page loads by itself. A link that someone may follow, `<a href>`, is no dependency.
//!
//! A documentation tree is hundreds of megabytes of tags, hardly one in fifty of which loads anything. So this is no
//! parser: it searches for the few tags that matter, all at once, and reads only those. Comments, scripts and styles
//! are skipped over as browsers do; what a script makes is not known.

use std::sync::LazyLock;

use memchr::{memchr_iter, memmem, memrchr2};

use super::css;
use super::found::Found;
use super::html_tag::{Attributes, close_of, without_entities};
use super::marks::Marks;

/// Tags that load something, comments, and style that loads something.
const TAGS: [&str; 16] = [
    "<link", "<script", "<img", "<image", "<source", "<video", "<audio", "<iframe", "<embed", "<object", "<input",
    "<track", "<style", "<base", "<use", "<frame",
];
const COMMENT: &str = "<!--";
const URL: &str = "url(";

/// What is worth a look in a page that writes its tags in lower case.
static LOWER: LazyLock<Marks> = LazyLock::new(|| Marks::new(&[&TAGS[..], &[COMMENT, URL]].concat()));

/// The same in a page that writes them in upper case, or with one capital. The search is slower by half.
static ANY_CASE: LazyLock<Marks> = LazyLock::new(|| {
    let mut texts: Vec<String> = [COMMENT, URL, "URL("].map(str::to_owned).into();
    for tag in TAGS {
        let capital = format!("<{}{}", tag[1..2].to_uppercase(), &tag[2..]);
        texts.extend([tag.to_owned(), tag.to_uppercase(), capital]);
    }
    Marks::new(&texts)
});

static COMMENT_END: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("-->"));

/// Words of `rel` that say that a link's target is loaded.
const LOADED: [&[u8]; 10] = [
    b"stylesheet",
    b"icon",
    b"preload",
    b"modulepreload",
    b"prefetch",
    b"manifest",
    b"apple-touch-icon",
    b"apple-touch-icon-precomposed",
    b"apple-touch-startup-image",
    b"mask-icon",
];

/// How far back from `url(` its tag may begin.
const TAG_BYTES_MAX: usize = 4096;

pub(super) fn extract(found: &mut Found<'_>) {
    let bytes = found.bytes();
    let marks = if writes_capitals(bytes) { &*ANY_CASE } else { &*LOWER };
    let mut at = 0;
    while let Some(hit) = marks.find(bytes, at) {
        at = match (bytes[hit.start], bytes[hit.start + 1]) {
            (b'<', b'!') => {
                // `<!-->` is a whole comment.
                let from = hit.end - 2;
                COMMENT_END.find(&bytes[from..]).map_or(bytes.len(), |len| from + len + 3)
            }
            (b'<', _) => tag(found, hit.start, hit.end),
            _ => url(found, hit.start).unwrap_or(hit.end),
        };
    }
}

/// Whether one of the first tags of the page has a capital letter: pages keep to one way of writing.
fn writes_capitals(bytes: &[u8]) -> bool {
    const TAGS_LOOKED_AT: usize = 3;
    let mut letters =
        memchr_iter(b'<', bytes).filter_map(|at| bytes.get(at + 1)).filter(|byte| byte.is_ascii_alphabetic());
    letters.by_ref().take(TAGS_LOOKED_AT).any(u8::is_ascii_uppercase)
}

/// Reads the tag that starts at `start` and whose name may end at `end`; returns where to go on.
fn tag(found: &mut Found<'_>, start: usize, end: usize) -> usize {
    let bytes = found.bytes();
    if bytes.get(end).is_some_and(|byte| !(byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))) {
        return end;
    }
    let mut name = [0; 8];
    let name = &mut name[..end - start - 1];
    name.copy_from_slice(&bytes[start + 1..end]);
    name.make_ascii_lowercase();
    let after = match &*name {
        b"link" => link(found, end),
        b"base" => base(found, end),
        b"image" | b"use" => attributes(found, end, |name| matches!(name, b"href" | b"xlink:href")),
        b"object" => attributes(found, end, |name| name == b"data"),
        _ => attributes(found, end, |name| matches!(name, b"src" | b"poster")),
    };
    match &*name {
        b"script" => close_of(bytes, after, b"script"),
        b"style" => {
            let close = close_of(bytes, after, b"style");
            css::extract(found, after..close);
            close
        }
        _ => after,
    }
}

/// The attributes of a tag that are references by themselves, sets of images, or style.
fn attributes(found: &mut Found<'_>, at: usize, refers: impl Fn(&[u8]) -> bool) -> usize {
    let mut attributes = Attributes::new(found.bytes(), at);
    for attribute in &mut attributes {
        let mut lower = [0; 16];
        let Some(lower) = lower.get_mut(..attribute.name.len()) else { continue };
        lower.copy_from_slice(attribute.name);
        lower.make_ascii_lowercase();
        match &*lower {
            b"srcset" | b"imagesrcset" => image_set(found, attribute.value, attribute.at),
            b"style" => style(found, attribute.value, attribute.at),
            name if refers(name) => found.url(&without_entities(attribute.value), Some(attribute.at)),
            _ => {}
        }
    }
    attributes.end()
}

/// `<link>`: what it is for stands in `rel`, before or after its reference.
fn link(found: &mut Found<'_>, at: usize) -> usize {
    let (mut target, mut loaded) = (None, false);
    let mut attributes = Attributes::new(found.bytes(), at);
    for attribute in &mut attributes {
        if attribute.name.eq_ignore_ascii_case(b"href") {
            target = target.or(Some((attribute.value, attribute.at)));
        } else if attribute.name.eq_ignore_ascii_case(b"rel") {
            let words = attribute.value.split(u8::is_ascii_whitespace);
            loaded |= words.into_iter().any(|word| LOADED.iter().any(|known| word.eq_ignore_ascii_case(known)));
        } else if attribute.name.eq_ignore_ascii_case(b"imagesrcset") {
            image_set(found, attribute.value, attribute.at);
        }
    }
    if let (Some((target, at)), true) = (target, loaded) {
        found.url(&without_entities(target), Some(at));
    }
    attributes.end()
}

fn base(found: &mut Found<'_>, at: usize) -> usize {
    let mut attributes = Attributes::new(found.bytes(), at);
    for attribute in &mut attributes {
        if attribute.name.eq_ignore_ascii_case(b"href") {
            found.set_base(&without_entities(attribute.value));
        }
    }
    attributes.end()
}

/// `a.png 1x, b.png 2x`: a comma ends a candidate only after its reference, since references may contain commas.
fn image_set(found: &mut Found<'_>, set: &[u8], at: usize) {
    let set = without_entities(set);
    let mut rest: &[u8] = &set;
    loop {
        rest = rest.trim_ascii_start();
        rest = &rest[rest.iter().take_while(|byte| **byte == b',' || byte.is_ascii_whitespace()).count()..];
        if rest.is_empty() {
            return;
        }
        let len = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (url, after) = rest.split_at(len);
        let commas = url.iter().rev().take_while(|byte| **byte == b',').count();
        found.url(&url[..len - commas], Some(at));
        rest = if commas > 0 {
            after
        } else {
            &after[after.iter().position(|byte| *byte == b',').unwrap_or(after.len())..]
        };
    }
}

/// The value of a `style` attribute.
fn style(found: &mut Found<'_>, value: &[u8], at: usize) {
    css::each(&without_entities(value), &mut |url, _| found.url(url, Some(at)));
}

/// `url(` counts in the `style` of a tag; returns where to go on after that tag.
fn url(found: &mut Found<'_>, at: usize) -> Option<usize> {
    let bytes = found.bytes();
    let window = &bytes[at.saturating_sub(TAG_BYTES_MAX)..at];
    let start = memrchr2(b'<', b'>', window).filter(|hit| window[*hit] == b'<')? + at - window.len();
    if !bytes[start + 1].is_ascii_alphabetic() {
        return None;
    }
    let name = bytes[start + 1..].iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))?;
    let after = attributes(found, start + 1 + name, |_| false);
    // A tag that ends before its own `url(` was none.
    (after > at).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;

    #[test]
    fn what_a_page_loads_is_named_and_what_it_links_to_is_not() {
        let text = r#"<!DOCTYPE html><html><head>
<link rel="stylesheet" href="css/a.css?v=1"><link href='icon.png' rel="shortcut icon">
<link rel=preload as=font href=../f/x.woff2><link rel="canonical" href="no.html"><link rel="next" href="no.html">
<script src="a.js"></script><script>var a = '<img src="no.png">' < "</div>";</script>
<style>@import "b.css"; body { background: url(bg.png) }</style>
</head><body><a href="no.html">x</a><!-- <img src="no.png"> --><img alt="a > b" src="p&amp;q.png" srcset="p1.png 1x, p,2.png 2x,p3.png">
<video poster=v.jpg src="v.mp4"><source src="v.webm"><track src="t.vtt"></video><audio src="a.ogg"></audio>
<iframe src="frame.html"></iframe><embed src="e.svg"><object data="o.svg"></object><input type=image src="i.png">
<svg><image href="s.png"/><use xlink:href="sprite.svg#x"/></svg><p style="background: url(&quot;in.png&quot;)">
text url(no.png) <imgx src="no.png"><img src="https://a.b/no.png"><img src="data:image/png;base64,AA"><img src>
"#;
        let expected = [
            "2 d/css/a.css",
            "2 d/icon.png",
            "3 f/x.woff2",
            "4 d/a.js",
            "5 d/b.css",
            "5 d/bg.png",
            "6 d/p&q.png",
            "6 d/p1.png",
            "6 d/p,2.png",
            "6 d/p3.png",
            "7 d/v.jpg",
            "7 d/v.mp4",
            "7 d/v.webm",
            "7 d/t.vtt",
            "7 d/a.ogg",
            "8 d/frame.html",
            "8 d/e.svg",
            "8 d/o.svg",
            "8 d/i.png",
            "9 d/s.png",
            "9 d/sprite.svg",
            "9 d/in.png",
        ];
        assert_eq!(shown("d/index.html", text), expected);
    }

    #[test]
    fn a_page_in_capitals_is_read_too() {
        let text = "<HTML><HEAD><LINK REL=StyleSheet HREF=a.css><SCRIPT SRC=a.js></SCRIPT></HEAD><Img Src=b.png>\
            <P STYLE='x: URL(c.png)'>";
        assert_eq!(shown("a.htm", text), ["1 a.css", "1 a.js", "1 b.png", "1 c.png"]);
    }

    #[test]
    fn a_base_moves_what_is_relative() {
        let check = |base: &str, expected: &[&str]| {
            let text = format!("<base href=\"{base}\"><img src=a.png><img src=/b.png>");
            assert_eq!(shown("d/e/index.html", &text), expected, "{base}");
        };
        check("../img/", &["1 d/img/a.png", "1 b.png"]);
        check("other/page.html", &["1 d/e/other/a.png", "1 b.png"]);
        check("/", &["1 a.png", "1 b.png"]);
        check("https://a.b/", &["1 b.png"]);
    }

    #[test]
    fn what_is_never_closed_names_nothing_absurd() {
        assert_eq!(shown("a.html", "<!-- <img src=a.png>"), [""; 0]);
        assert_eq!(shown("a.html", "<script> <img src=a.png>"), [""; 0]);
        assert_eq!(shown("a.html", "<!--><img src=a.png>"), ["1 a.png"]);
        assert_eq!(shown("a.html", "<img src=a.png"), ["1 a.png"]);
        assert_eq!(shown("a.html", "<img src=\"a.png"), ["1 a.png"]);
        for text in
            ["<img", "<link rel", "<link rel=", "<base href=", "url(", "<p style=url(", "<use", "<script", "<style"]
        {
            assert_eq!(shown("a.html", text), [""; 0], "{text}");
        }
    }
}
