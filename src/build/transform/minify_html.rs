//! `minify-html`: pages without comments and without white space that no browser shows.
//!
//! The page is cut into tokens as browsers do (`html5gum`, the tokenizer of the WHATWG's specification), and every
//! token is copied as it was written: names, attributes and character references stay. What goes is what cannot be
//! seen: comments, runs of white space where a browser shows one space, spaces between attributes. Nothing goes
//! inside `pre`, `textarea`, `script`, `style` and their like. A page that gives other elements `white-space: pre`
//! by its style sheet should not be minified.

use html5gum::{DefaultEmitter, Error as HtmlError, Span, Token, Tokenizer};
use serde::Deserialize;

use super::text::{Fault, utf8};
use super::{Context, Input, Output, Transform};
use crate::error::Result;

/// Elements in which every space counts, or whose content is another language.
const VERBATIM: [&[u8]; 12] = [
    b"pre",
    b"textarea",
    b"script",
    b"style",
    b"listing",
    b"xmp",
    b"plaintext",
    b"iframe",
    b"noembed",
    b"noframes",
    b"noscript",
    b"template",
];

/// `minify-html`: drops comments and white space that is not shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinifyHtml;

/// The parameters of [`MinifyHtml`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HtmlParameters {
    /// Whether comments stay. Default `false`; conditional ones (`<!--[if`), those of servers (`<!--#`) and those that
    /// ask for it (`<!--!`) stay always.
    pub keep_comments: bool,
}

impl MinifyHtml {
    /// Its name.
    pub const NAME: &'static str = "minify-html";
}

impl Transform for MinifyHtml {
    type Parameters = HtmlParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn run(&self, input: Input<'_>, parameters: &HtmlParameters, _context: &mut dyn Context) -> Result<Output> {
        let text = utf8(&input, Self::NAME)?;
        minify(text, *parameters).map(Into::into).map_err(|fault| fault.of(&input, Self::NAME))
    }
}

/// A page on its way out.
#[derive(Default)]
struct Page {
    into: Vec<u8>,
    /// Open elements whose content is copied as it is, as indices of [`VERBATIM`].
    verbatim: Vec<usize>,
    /// Before the page's first tag, or between the tags of its head: no text is shown there.
    unseen: bool,
    /// Whether the text is that of the page's title, which stands in its head.
    titled: bool,
    /// Whether the text so far ends with white space: none is needed after it, also behind a comment that went.
    spaced: bool,
    /// White space where none is shown, should a text follow it after all.
    withheld: Option<u8>,
    /// Where the word begins that the text so far ends with.
    word: Option<usize>,
}

fn minify(html: &str, parameters: HtmlParameters) -> Result<Vec<u8>, Fault> {
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    emitter.naively_switch_states(true);
    let mut page = Page { into: Vec::with_capacity(html.len()), unseen: true, ..Page::default() };
    let raw = |span: Span| html.as_bytes().get(span.start..span.end).unwrap_or_default();
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                page.tag(raw(tag.span));
                page.unseen = &tag.name[..] == b"head" || (page.unseen && belongs_to_head(&tag.name));
                page.titled = &tag.name[..] == b"title";
                page.verbatim.extend(verbatim(&tag.name));
            }
            Token::EndTag(tag) => {
                let closes = verbatim(&tag.name);
                if let Some(at) = page.verbatim.iter().rposition(|open| Some(*open) == closes) {
                    page.verbatim.remove(at);
                }
                page.tag(raw(tag.span));
                page.unseen = page.unseen && &tag.name[..] != b"head";
                page.titled = false;
            }
            Token::String(text) => page.text(raw(text.span)),
            Token::Comment(comment) => {
                let comment = raw(comment.span);
                if parameters.keep_comments || !page.verbatim.is_empty() || stays(comment) || page.would_join() {
                    page.into.extend_from_slice(comment);
                    page.spaced = false;
                    page.word = None;
                }
            }
            Token::Doctype(doctype) => page.tag(raw(doctype.span)),
            // Browsers repair every error, and so do most pages rely on it. That a file ends within a tag is another
            // matter: it was cut off.
            Token::Error(error) => {
                let what = match error.value {
                    HtmlError::EofInTag => "a tag",
                    HtmlError::EofInComment => "a comment",
                    HtmlError::EofInDoctype => "the document type",
                    HtmlError::EofInCdata => "a CDATA section",
                    _ => continue,
                };
                return Err(Fault::at(html, html.len(), format!("the file ends within {what}")));
            }
        }
    }
    Ok(page.into)
}

fn verbatim(name: &[u8]) -> Option<usize> {
    VERBATIM.iter().position(|known| *known == name)
}

/// Elements that do not end a head that was not begun or not ended.
fn belongs_to_head(name: &[u8]) -> bool {
    [&b"html"[..], b"head", b"meta", b"link", b"base", b"title", b"script", b"style"].contains(&name)
}

/// Comments that somebody reads. A browser takes `<?x>` and the like for comments too; they stay.
fn stays(comment: &[u8]) -> bool {
    let Some(text) = comment.strip_prefix(b"<!--") else { return true };
    text.starts_with(b"[if") || text.starts_with(b"<![endif]") || text.starts_with(b"#") || text.starts_with(b"!")
}

impl Page {
    /// Whether what follows would mean something else right after the text so far: `<` and `b>` make a tag.
    fn would_join(&self) -> bool {
        self.word.is_some_and(|word| self.into[word..].iter().any(|byte| matches!(byte, b'<' | b'&')))
    }

    fn tag(&mut self, raw: &[u8]) {
        (self.spaced, self.word, self.withheld) = (false, None, None);
        let mut at = 0;
        let mut pending = false;
        // A quote opens a value only right after its `=`.
        let mut valued = false;
        while let Some(&byte) = raw.get(at) {
            if is_space(byte) {
                pending = true;
                at += 1;
                continue;
            }
            if pending && byte != b'>' {
                self.into.push(b' ');
            }
            pending = false;
            if valued && (byte == b'"' || byte == b'\'') {
                let len = memchr::memchr(byte, &raw[at + 1..]).map_or(raw.len() - at, |len| len + 2);
                self.into.extend_from_slice(&raw[at..at + len]);
                at += len;
                valued = false;
                continue;
            }
            valued = byte == b'=';
            self.into.push(byte);
            at += 1;
        }
    }

    fn text(&mut self, raw: &[u8]) {
        if !self.verbatim.is_empty() {
            self.into.extend_from_slice(raw);
            self.spaced = false;
            return;
        }
        // Lines stay short where they were.
        let space = |run: &[u8]| if run.contains(&b'\n') { b'\n' } else { b' ' };
        if self.unseen && raw.iter().all(|byte| is_space(*byte)) {
            self.withheld = Some(space(raw));
            return;
        }
        // A text outside the title begins the page's body, with or without a tag.
        self.unseen &= self.titled;
        if let Some(withheld) = self.withheld.take() {
            self.into.push(withheld);
            self.spaced = true;
        }
        let mut at = 0;
        while at < raw.len() {
            let run = raw[at..].iter().take_while(|byte| is_space(**byte)).count();
            if run > 0 {
                if !self.spaced {
                    self.into.push(space(&raw[at..at + run]));
                }
                (self.spaced, self.word) = (true, None);
                at += run;
            } else {
                let len = raw[at..].iter().take_while(|byte| !is_space(**byte)).count();
                self.word = self.word.or(Some(self.into.len()));
                self.into.extend_from_slice(&raw[at..at + len]);
                self.spaced = false;
                at += len;
            }
        }
    }
}

/// White space as HTML has it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minified(html: &str) -> String {
        String::from_utf8(minify(html, HtmlParameters::default()).unwrap()).unwrap()
    }

    #[test]
    fn what_no_browser_shows_goes_and_the_rest_stays_as_written() {
        let check = |html: &str, expected: &str| assert_eq!(minified(html), expected, "{html}");
        check(
            "<!DOCTYPE html>\n<!-- top -->\n<html>\n <head>\n  <title> a  b </title>\n </head>\n\n <body>\n  <p>x</p>",
            "<!DOCTYPE html><html><head><title> a b </title></head>\n<body>\n<p>x</p>",
        );
        check("<p  class=\"a  b\"\n x='1  2' y = 3 >a  <!-- c -->  b</p >", "<p class=\"a  b\" x='1  2' y = 3>a b</p>");
        check("<a href=x />&amp;  &nbsp; é", "<a href=x />&amp; &nbsp; é");
        check("a <b> x </b> c", "a <b> x </b> c");
        check("<p title=it's  id='a  b'>", "<p title=it's id='a  b'>");
        check("word<!-- c -->  <p>", "word <p>");
    }

    #[test]
    fn where_every_space_counts_none_goes() {
        for html in [
            "<pre>  a\n\n  b <i>  c </i></pre>",
            "<textarea>  a\n\n</textarea>",
            "<script>let a  =  '<!-- x -->';\n\n// y\n</script>",
            "<style>a  {  }</style>",
            "<p><!--[if IE]>  x  <![endif]--></p>",
            "<?php  x ?>",
        ] {
            assert_eq!(minified(html), html);
        }
        let kept = minify("<p>a <!-- x --> b", HtmlParameters { keep_comments: true }).unwrap();
        assert_eq!(kept, b"<p>a <!-- x --> b");
    }

    #[test]
    fn a_page_that_was_cut_off_is_refused_with_its_line() {
        let check = |html: &str, place: (u32, u32), cause: &str| {
            let fault = minify(html, HtmlParameters::default()).unwrap_err();
            assert_eq!(fault, Fault { place: Some(place), cause: cause.into() });
        };
        check("<p>\n<a href=\"x", (2, 11), "the file ends within a tag");
        check("<p>\n<!-- x\n", (3, 1), "the file ends within a comment");
        assert_eq!(minified("<p>a<b>"), "<p>a<b>", "a missing end tag is nothing unusual");
    }

    /// What a browser sees: tags with their attributes, and texts with runs of white space as one space.
    fn seen(html: &str) -> Vec<String> {
        let mut emitter = DefaultEmitter::<()>::default();
        emitter.naively_switch_states(true);
        let mut seen: Vec<String> = Vec::new();
        let mut text = String::new();
        let flush = |text: &mut String, seen: &mut Vec<String>| {
            let words = text.split([' ', '\t', '\n', '\r', '\x0c']).collect::<Vec<_>>();
            let kept: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
            let (front, back) =
                (words.len() > 1 && words[0].is_empty(), words.len() > 1 && words[words.len() - 1].is_empty());
            if !kept.is_empty() {
                seen.push(format!("{}{}{}", if front { " " } else { "" }, kept.join(" "), if back { " " } else { "" }));
            }
            text.clear();
        };
        for token in Tokenizer::new_with_emitter(html, emitter) {
            let Ok(token) = token;
            match token {
                Token::StartTag(tag) => {
                    flush(&mut text, &mut seen);
                    seen.push(format!("<{:?} {:?} {}>", tag.name, tag.attributes, tag.self_closing));
                }
                Token::EndTag(tag) => {
                    flush(&mut text, &mut seen);
                    seen.push(format!("</{:?}>", tag.name));
                }
                Token::String(string) => text.push_str(&String::from_utf8_lossy(&string.value)),
                Token::Comment(_) | Token::Error(_) => {}
                Token::Doctype(doctype) => seen.push(format!("{doctype:?}")),
            }
        }
        flush(&mut text, &mut seen);
        seen
    }

    proptest! {
        #[test]
        fn a_browser_sees_the_same_and_a_second_run_changes_nothing(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("<p>"), Just("</p>"), Just("<a href='x  y'  b = \"1\" c=it's >"), Just("<br />"), Just("<br/>"),
                    Just("<pre>"), Just("</pre>"), Just("<!-- c -->"), Just("  "), Just("\n"), Just("word"), Just("&lt;"),
                    Just("<"), Just(">"), Just("=\"'"), Just("<i x=y/ >"), Just("</i\n>"), Just("<head>"), Just("</head>"),
                ],
                0..24,
            ),
        ) {
            let html = parts.concat();
            if let Ok(once) = minify(&html, HtmlParameters::default()) {
                let once = String::from_utf8(once).unwrap();
                prop_assert_eq!(seen(&once), seen(&html));
                prop_assert_eq!(minified(&once), once);
            }
        }

        #[test]
        fn hostile_text_does_not_panic(html in ".{0,80}") {
            let _ = minify(&html, HtmlParameters::default());
        }
    }
}
