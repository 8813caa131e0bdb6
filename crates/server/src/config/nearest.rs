//! Suggestions for misspelt names.

/// The name of `known` with the smallest edit distance to `name`, if the distance is at most a
/// third of the length of `name`.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let with_distance = known.map(|known| (distance(name, known), known));
    let (distance, known) = with_distance.min()?;
    (distance <= name.len() / 3).then_some(known)
}

/// The edit distance of two texts in bytes: insertions, deletions and replacements (Levenshtein
/// 1966). The loop computes one row of the matrix of distances between prefixes at a time.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], done.saturating_add(1));
        for (at, other) in to.bytes().enumerate() {
            let replaced = diagonal.saturating_add(usize::from(letter != other));
            let next = at.saturating_add(1);
            let inserted = row[at].min(row[next]).saturating_add(1);
            diagonal = std::mem::replace(&mut row[next], replaced.min(inserted));
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest name is found; a name that resembles no known name gets no suggestion.
    #[test]
    fn misspelt_names() {
        let known = || ["shards", "max-conns", "max-channels"].into_iter();
        for (name, meant) in [
            ("shrads", Some("shards")),
            ("max-chanels", Some("max-channels")),
            ("max_conns", Some("max-conns")),
            ("maxconns", Some("max-conns")),
            ("turbo", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known()), meant, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", "")), (3, 3));
    }
}
