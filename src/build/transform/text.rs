//! What the transforms of text share: UTF-8 or an error that knows the line, and where in a text something stands.

use super::Input;
use crate::error::{Error, Result};

/// Why a text does not build, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Line and column, counted from 1.
    pub place: Option<(u32, u32)>,
    pub cause: String,
}

impl Fault {
    /// A fault at a byte of `text`.
    #[cfg(feature = "minify")]
    pub fn at(text: &str, offset: usize, cause: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let column = 1 + before.rsplit('\n').next().unwrap_or(before).chars().count();
        Self::placed(line_of(before.as_bytes()), column, cause)
    }

    /// A fault at a place that a library told. Some count the end of an empty text as line or column 0.
    pub fn placed(line: usize, column: usize, cause: impl Into<String>) -> Self {
        let number = |number: usize| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        Self { place: Some((number(line), number(column))), cause: cause.into() }
    }

    /// A fault of the whole.
    #[cfg(feature = "minify")]
    pub fn whole(cause: impl Into<String>) -> Self {
        Self { place: None, cause: cause.into() }
    }

    /// As the failure of a build.
    pub fn of(self, input: &Input<'_>, transform: &str) -> Error {
        match self.place {
            Some((line, column)) => input.error_at(transform, line, column, self.cause),
            None => input.error(transform, None, self.cause),
        }
    }
}

/// The text of `input`, without the mark that editors on Windows put in front.
pub(super) fn utf8<'a>(input: &Input<'a>, transform: &str) -> Result<&'a str> {
    let bytes = input.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input.bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = line_of(&bytes[..error.valid_up_to()]);
        input.error(transform, u32::try_from(line).ok(), "it is not UTF-8")
    })
}

/// The line that the end of `before` stands in, from 1.
fn line_of(before: &[u8]) -> usize {
    1 + memchr::memchr_iter(b'\n', before).count()
}
