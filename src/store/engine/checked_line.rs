//! Lines of text files with a checksum each: `TEXT, sum S`.

use sha2::{Digest as _, Sha256};

/// Hex digits of a checksum.
const SUM: usize = 16;

/// A line with its checksum.
pub(crate) fn line(text: &str) -> String {
    let sum: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}, sum {}\n", sum.get(..SUM).unwrap_or_default())
}

/// The text of a line whose checksum is right.
pub(crate) fn trusted(found: &str) -> Option<&str> {
    let (text, _) = found.rsplit_once(", sum ")?;
    (line(text).trim_end() == found).then_some(text)
}
