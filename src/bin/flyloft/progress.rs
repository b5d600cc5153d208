//! A bar on a terminal, nothing in a pipe.

use std::time::Duration;

use flyloft::build::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows how long work goes on, on standard error.
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// It hides itself where standard error is not a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        // The template is a constant that parses.
        if let Ok(style) = ProgressStyle::with_template("{bar:28} {pos}/{len} {msg} ({elapsed})") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Takes it away again.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn step(&self, done: u64, total: u64, what: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.message() != what {
            self.bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
