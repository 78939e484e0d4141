//! Joins texts of different origin into sentences, so that no punctuation doubles.

/// A text that others follow as sentences: with its own mark at the end, or a full stop.
pub fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '?', '!', '…']) { text.to_owned() } else { format!("{text}.") }
}

/// A text within a sentence that goes on with a comma, a semicolon or a bracket: without a full stop at its end.
pub fn clause(text: &str) -> &str {
    text.trim_end().trim_end_matches('.')
}

/// What is wrong, and what to do about it.
pub fn with_remedy(text: &str, remedy: &str) -> String {
    format!("{} Remedy: {remedy}", sentence(text))
}

#[cfg(test)]
mod tests {
    use super::{clause, sentence, with_remedy};

    #[test]
    fn punctuation_does_not_double() {
        assert_eq!(with_remedy("is the path right?", "see"), "is the path right? Remedy: see");
        assert_eq!(with_remedy("it fails", "see"), "it fails. Remedy: see");
        assert_eq!([sentence("ends. "), sentence("cut…")], ["ends.", "cut…"]);
        assert_eq!([clause("by a fault rule."), clause("really?"), clause("no")], ["by a fault rule", "really?", "no"]);
    }
}
