//! Counts in texts for people: "1 call", "2 calls".

use std::fmt::Display;

/// A count with its noun in the number that fits.
pub fn counted<N: Display + PartialEq + TryFrom<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if N::try_from(1).is_ok_and(|single| count == single) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_singular_and_none_is_not() {
        assert_eq!(counted(0_u64, "entry", "entries"), "0 entries");
        assert_eq!(counted(1_usize, "entry", "entries"), "1 entry");
        assert_eq!(counted(2_u32, "entry", "entries"), "2 entries");
    }
}
