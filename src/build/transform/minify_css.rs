//! `minify-css`: style sheets in fewer bytes that mean the same to every browser that understood them before.
//!
//! Parsed, minified and written by `lightningcss`, which Parcel and Vite use. No browser targets are set, so that
//! nothing is rewritten for older or newer browsers; rules are merged and values shortened where that changes nothing.

use lightningcss::stylesheet::{MinifyOptions, ParserOptions, PrinterOptions, StyleSheet};

use super::text::{Fault, utf8};
use super::{Context, Input, NoParameters, Output, Transform};
use crate::error::Result;

/// `minify-css`: it takes no parameters. What does not parse is an error with its line and column.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinifyCss;

impl MinifyCss {
    /// Its name.
    pub const NAME: &'static str = "minify-css";
}

impl Transform for MinifyCss {
    type Parameters = NoParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    /// Raised also when the library writes something else than before.
    fn version(&self) -> u32 {
        1
    }

    fn run(&self, input: Input<'_>, _parameters: &NoParameters, _context: &mut dyn Context) -> Result<Output> {
        let text = utf8(&input, Self::NAME)?;
        minify(text).map(|css| css.into_bytes().into()).map_err(|fault| fault.of(&input, Self::NAME))
    }
}

fn minify(text: &str) -> Result<String, Fault> {
    let mut sheet = StyleSheet::parse(text, ParserOptions::default()).map_err(fault)?;
    sheet.minify(MinifyOptions::default()).map_err(fault)?;
    let printed = sheet.to_css(PrinterOptions { minify: true, ..PrinterOptions::default() }).map_err(fault)?;
    Ok(printed.code)
}

fn fault<T: std::fmt::Display>(error: lightningcss::error::Error<T>) -> Fault {
    match error.loc {
        // Lines count from 0 there, and columns from 1.
        Some(place) => Fault::placed(place.line as usize + 1, place.column as usize, error.kind.to_string()),
        None => Fault::whole(error.kind.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_says_the_same_in_fewer_bytes() {
        let check = |text: &str, expected: &str| assert_eq!(minify(text).unwrap(), expected);
        check(
            "/* c */\na , b:hover {\n  color : #ff0000 ;\n  margin : 0px 0px ;\n}\n",
            "a,b:hover{color:red;margin:0}",
        );
        check("@media ( min-width : 10px ) { a { top: calc(1px + 2px) } }", "@media (width>=10px){a{top:3px}}");
        check("a::before { content: \"a  b\" }", "a:before{content:\"a  b\"}");
        check("a { --x:  1px  2px; color: var( --x ) }", "a{--x:1px 2px;color:var(--x)}");
        check("", "");
    }

    #[test]
    fn what_is_no_style_sheet_is_refused_with_its_line_and_column() {
        let check = |text: &str, place: (u32, u32), cause: &str| {
            assert_eq!(minify(text).unwrap_err(), Fault { place: Some(place), cause: cause.into() });
        };
        check("a { color: red }\nb { color red }", (2, 10), "Unexpected token Ident(\"red\")");
        check("a {}\n}", (2, 2), "Unexpected end of input");
        check("\n\n@media {{ }", (3, 9), "Invalid empty selector");
    }
}
