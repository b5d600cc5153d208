//! After one asset the next in order: files that are read one after the other, blocks of a disk.
//!
//! Streams are short-lived, so nothing of them is saved.

use super::streams::{Steps, Streams};

/// Guesses the next in order, of several interleaved streams.
pub fn sequential() -> Streams {
    Streams::new(Steps::One)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Numbered, guesses};
    use super::*;

    #[test]
    fn interleaved_streams_are_each_followed_to_the_distance() {
        let mut expert = sequential();
        let world = Numbered(1000);
        for place in 0..5 {
            for stream in [100, 300, 700] {
                let guessed = guesses(&mut expert, stream + place, &world, 3);
                let next = stream + place;
                let expected = if place == 0 { vec![] } else { vec![next + 1, next + 2, next + 3] };
                assert_eq!(guessed, expected);
            }
        }
        assert_eq!(guesses(&mut expert, 998, &world, 3), [0; 0]);
        assert_eq!(guesses(&mut expert, 999, &world, 3), [0; 0], "there is nothing behind the last");
    }
}
