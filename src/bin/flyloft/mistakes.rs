//! Mistakes in a flyloft.toml as people see them on a terminal: each with its line and what is marked in it. A pipe gets
//! the one line that every error is.

use std::io::{IsTerminal, stderr};
use std::path::Path;

use codespan_reporting::diagnostic::{Diagnostic, Label};
use codespan_reporting::files::SimpleFile;
use codespan_reporting::term::termcolor::{ColorChoice, StandardStream, WriteColor};
use codespan_reporting::term::{self, Config};
use flyloft::build::config::{FILE_NAME, Mistake, TreeConfig};
use flyloft::{Error, Event};

use crate::failure::Failure;
use crate::open;

/// How a command ends with an error of a build of the tree at `root`.
pub fn failure(error: Error, root: &Path, allow_commands: bool) -> Failure {
    let about = |text: &str| text == FILE_NAME || text.starts_with(&format!("{FILE_NAME}:"));
    match &error {
        Error::Config { field, .. } if about(field) && shows(root, allow_commands) => Failure::Shown,
        _ => error.into(),
    }
}

/// Shows what is wrong with the flyloft.toml at the top of `root`, where that is what an event tells of.
pub fn shows_of(event: &Event, root: &Path, allow_commands: bool) {
    if matches!(event, Event::BuildFailed(failure) if failure.path == FILE_NAME) {
        shows(root, allow_commands);
    }
}

/// Shows what is wrong with the flyloft.toml at the top of `root` on standard error, if that is a terminal and the file
/// has mistakes. Whether it did.
fn shows(root: &Path, allow_commands: bool) -> bool {
    if !stderr().is_terminal() {
        return false;
    }
    let file = root.join(FILE_NAME);
    let Ok(text) = std::fs::read_to_string(&file) else { return false };
    let mistakes = TreeConfig::mistakes(&text, &open::registry(allow_commands));
    // A mistake about the whole file marks nothing in it.
    let marked = !mistakes.is_empty() && mistakes.iter().all(|mistake| mistake.line.is_some());
    marked && draw(&mut StandardStream::stderr(ColorChoice::Auto), &file.display().to_string(), &text, &mistakes)
}

fn draw(to: &mut dyn WriteColor, name: &str, text: &str, mistakes: &[Mistake]) -> bool {
    let file = SimpleFile::new(name, text);
    let config = Config { start_context_lines: 1, ..Config::default() };
    mistakes.iter().all(|mistake| {
        // What is expected stands where the eye is: below the mark.
        let (what, expected) = mistake.message.split_once("; ").unwrap_or((&mistake.message, ""));
        let label = Label::primary((), mistake.span.clone()).with_message(expected);
        let diagnostic = Diagnostic::error().with_message(what).with_label(label);
        term::emit_to_write_style(to, &config, &file, &diagnostic).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use codespan_reporting::term::termcolor::Buffer;

    /// As [`draw`] draws it, without colours.
    fn drawn(text: &str) -> String {
        let mistakes = TreeConfig::mistakes(text, &open::registry(false));
        let mut buffer = Buffer::no_color();
        assert!(draw(&mut buffer, FILE_NAME, text, &mistakes));
        String::from_utf8(buffer.into_inner()).unwrap()
    }

    #[test]
    fn each_mistake_is_marked_in_its_line() {
        let text = "ignore = ['*.tmp']\n\n[[transform]]\nglob = '*.json'\nname = 'minify-jsn'\n\n[deps]\n'a' = 3\n";
        let drawn = drawn(text);
        let lines: Vec<&str> = drawn.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "error: no transform is named 'minify-jsn'");
        assert!(lines[1].ends_with("flyloft.toml:5:8"), "{drawn}");
        let at = lines.iter().position(|line| line.ends_with("│ name = 'minify-jsn'")).unwrap();
        assert!(
            lines[at + 1].contains("^^^^^^^^^^^^") && lines[at + 1].contains("did you mean 'minify-json'?"),
            "{drawn}"
        );
        assert!(drawn.contains("flyloft.toml:8:7"), "{drawn}");
    }

    #[test]
    fn a_mark_stands_below_its_word_whatever_letters_come_before() {
        let drawn = drawn("'größe' = 1\n");
        let lines: Vec<&str> = drawn.lines().collect();
        let at = lines.iter().position(|line| line.contains("│ 'größe' = 1")).unwrap();
        let column = |line: &str, what: char| line.chars().position(|letter| letter == what).unwrap();
        assert_eq!(column(lines[at], '\''), column(lines[at + 1], '^'), "{drawn}");
    }
}
