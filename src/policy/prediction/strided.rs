//! After two assets with so many between them the next one as far on: columns of a table, levels of detail, and
//! whatever is read backwards.

use super::streams::{Steps, Streams};

/// Guesses the next with the same step, of several interleaved streams.
pub fn strided() -> Streams {
    Streams::new(Steps::Others)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Numbered, guesses};
    use super::*;

    #[test]
    fn steps_of_any_size_are_followed_forwards_and_backwards_at_once() {
        let mut expert = strided();
        let world = Numbered(10_000);
        for place in 0..6 {
            let (up, down) = (100 + 17 * place, 9000 - 5 * place);
            let (up_next, down_next) = (guesses(&mut expert, up, &world, 2), guesses(&mut expert, down, &world, 2));
            if place >= 2 {
                assert_eq!((up_next, down_next), (vec![up + 17, up + 34], vec![down - 5, down - 10]));
            } else {
                assert!(up_next.is_empty() && down_next.is_empty());
            }
        }
    }
}
