//! Detects characters that are unsafe to print to a terminal. Called wherever text from outside is shown. Pure.

/// Whether a character acts on a terminal, or makes a line look like another: controls, line ends, direction marks.
pub fn is_unsafe(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
