//! What letters do to those who look at them. Called by whoever shows text that others wrote. Pure.

/// Whether a letter acts on a terminal, or makes a line read as another: control characters, line ends and marks of
/// direction.
pub fn acts_on_a_terminal(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
