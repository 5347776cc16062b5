//! The known word nearest to one that is not: what an answer to a typing mistake ends with.

/// `; did you mean 'x'?`, or nothing if nothing is known.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let best = known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match best {
        Some((_, candidate)) => format!("; did you mean '{candidate}'?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_named() {
        assert_eq!(did_you_mean("batchin", ["artefact", "batching"]), "; did you mean 'batching'?");
        assert_eq!(did_you_mean("x", []), "");
    }
}
