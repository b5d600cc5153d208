//! What somebody meant who wrote a word that is not known.

/// The end of a message about `word`, which is none of `known`: what was meant, if something is near enough.
pub(super) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or(String::new(), |meant| format!("; did you mean '{meant}'?"))
}

/// [`hint`] for a message of serde's, which quotes the word and what is known: ``unknown field `a`, expected `b` ``.
pub(super) fn hint_of(message: &str) -> String {
    if !message.starts_with("unknown ") {
        return String::new();
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    quoted.next().map_or(String::new(), |word| hint(word, quoted))
}

/// The known word that `word` differs from least, in at most three letters and two of five; or the only one that begins with it.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known.iter().map(|other| (distance(word, other), *other)).min_by_key(|(distance, _)| *distance);
    if let Some((distance, other)) = near
        && distance <= 3
        && distance * 5 <= 2 * word.chars().count().max(other.chars().count())
    {
        return Some(other);
    }
    let mut longer = known.into_iter().filter(|other| word.len() > 2 && other.starts_with(word));
    longer.next().filter(|_| longer.next().is_none())
}

/// Letters to insert, drop, replace or swap with their neighbour (Damerau, Levenshtein; each place once).
fn distance(one: &str, other: &str) -> usize {
    /// Longer words are no misspelt names.
    const LETTERS_MAX: usize = 64;
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().max(other.len()) > LETTERS_MAX {
        return usize::MAX / 8;
    }
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, against) in other.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != against);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *against {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_what_was_meant() {
        let known = ["glob", "name", "parameters", "steps"];
        let check = |word: &str, expected: Option<&str>| assert_eq!(nearest(word, known), expected, "{word}");
        check("nmae", Some("name"));
        check("globs", Some("glob"));
        check("parameter", Some("parameters"));
        check("par", Some("parameters"));
        check("x", None);
        check("colour", None);
        check(&"x".repeat(10_000), None);
        assert_eq!(nearest("minify", ["minify-css", "minify-json"]), None);
        assert_eq!(nearest("minify-jsn", ["minify-css", "minify-json"]), Some("minify-json"));
    }

    #[test]
    fn serdes_own_words_are_understood() {
        let check = |message: &str, expected: &str| assert_eq!(hint_of(message), expected, "{message}");
        check("unknown field `lvl`, expected one of `level`, `mode`", "; did you mean 'level'?");
        check("unknown variant `fst`, expected `fast` or `slow`", "; did you mean 'fast'?");
        check("unknown field `indent`, there are no fields", "");
        check("invalid type: string \"a\", expected u32", "");
    }
}
