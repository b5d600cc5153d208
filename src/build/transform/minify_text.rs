//! `minify-text`: lines as everyone expects them: no white space at their ends, one kind of line end, one at the end.

use serde::Deserialize;

use super::text::utf8;
use super::{Context, Input, Output, Transform};
use crate::error::Result;

/// `minify-text`: tidies the ends of lines and of the file. The text between stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinifyText;

/// The parameters of [`MinifyText`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextParameters {
    /// Whether spaces and tabs before a line's end go. Default `true`.
    pub trim: bool,
    /// How lines end. Default `lf`.
    pub line_ends: LineEnds,
    /// Whether the file ends with exactly one line end, unless it is empty. Default `true`. Otherwise how many there
    /// are is left alone.
    pub final_newline: bool,
}

impl Default for TextParameters {
    fn default() -> Self {
        Self { trim: true, line_ends: LineEnds::Lf, final_newline: true }
    }
}

/// How lines end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEnds {
    /// With a line feed. The default.
    #[default]
    Lf,
    /// With a carriage return and a line feed.
    Crlf,
    /// As they do.
    Keep,
}

impl MinifyText {
    /// Its name.
    pub const NAME: &'static str = "minify-text";
}

impl Transform for MinifyText {
    type Parameters = TextParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn cached(&self) -> bool {
        false
    }

    fn run(&self, input: Input<'_>, parameters: &TextParameters, _context: &mut dyn Context) -> Result<Output> {
        let text = utf8(&input, Self::NAME)?;
        Ok(tidy(text, parameters).into_bytes().into())
    }
}

fn tidy(text: &str, parameters: &TextParameters) -> String {
    let mut into = String::with_capacity(text.len());
    // The end of the last line that is not empty, and the line end that follows it.
    let (mut kept, mut last_end) = (0, "\n");
    for line in text.split_inclusive('\n') {
        let (body, end) = match (line.strip_suffix("\r\n"), line.strip_suffix('\n')) {
            (Some(body), _) => (body, "\r\n"),
            (None, Some(body)) => (body, "\n"),
            (None, None) => (line, ""),
        };
        let end = match (parameters.line_ends, end) {
            (_, "") => "",
            (LineEnds::Lf, _) => "\n",
            (LineEnds::Crlf, _) => "\r\n",
            (LineEnds::Keep, end) => end,
        };
        // A carriage return before the line end that is written would be read as a part of that.
        let joins = parameters.line_ends != LineEnds::Keep || (end.is_empty() && parameters.final_newline);
        into.push_str(match (parameters.trim, joins) {
            (true, _) => body.trim_end_matches([' ', '\t', '\r']),
            (false, true) => body.trim_end_matches('\r'),
            (false, false) => body,
        });
        if !into.ends_with('\n') && into.len() > kept {
            kept = into.len();
            last_end = if end.is_empty() { last_end } else { end };
        }
        into.push_str(end);
    }
    if parameters.final_newline {
        into.truncate(kept);
        if !into.is_empty() {
            into.push_str(match parameters.line_ends {
                LineEnds::Lf => "\n",
                LineEnds::Crlf => "\r\n",
                LineEnds::Keep => last_end,
            });
        }
    }
    into
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_lines_and_of_the_file_are_tidied_and_nothing_else() {
        let check =
            |text: &str, expected: &str| assert_eq!(tidy(text, &TextParameters::default()), expected, "{text:?}");
        check("a \t\r\n  b\n\n\n", "a\n  b\n");
        check("a\n\n b  c", "a\n\n b  c\n");
        check("", "");
        check(" \n\t\n", "");
        check("a\rb\r\n", "a\rb\n");
    }

    #[test]
    fn each_parameter_does_what_it_says() {
        let check = |parameters: &str, text: &str, expected: &str| {
            let parameters: TextParameters = toml::from_str(parameters).unwrap();
            assert_eq!(tidy(text, &parameters), expected, "{text:?}");
        };
        check("line_ends = 'crlf'", "a\nb\r\nc", "a\r\nb\r\nc\r\n");
        check("line_ends = 'keep'", "a \r\nb\n\n", "a\r\nb\n");
        check("line_ends = 'keep'", "a\r\nb", "a\r\nb\r\n");
        check("trim = false", "a \nb\t", "a \nb\t\n");
        check("final_newline = false", "a \n\n", "a\n\n");
        check("final_newline = false", "a \nb ", "a\nb");
    }

    proptest! {
        #[test]
        fn a_second_run_changes_nothing(
            text in "[ \ta\r\n]{0,24}", trim: bool, final_newline: bool, ends in 0..3_usize,
        ) {
            let line_ends = [LineEnds::Lf, LineEnds::Crlf, LineEnds::Keep][ends];
            let parameters = TextParameters { trim, line_ends, final_newline };
            let once = tidy(&text, &parameters);
            prop_assert_eq!(tidy(&once, &parameters), once);
        }
    }
}
