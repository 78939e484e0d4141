//! Reads a secret from a file or from standard input, for `shops` and `status`. Never from an argument.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::Failure;

/// Longer than any secret; bounds the read of a wrong file.
const BYTES_MAX: u64 = 4096;

/// Reads the text of a file that a flag names.
///
/// # Errors
/// It cannot be read as text.
pub(super) fn of_file(flag: &str, file: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = || {
        let mut text = Zeroizing::new(String::new());
        File::open(file)?.take(BYTES_MAX).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    Ok(read().with_context(|| format!("{flag} {}", file.display()))?)
}

/// Reads what is piped into standard input. `what` it is, and `hint` for a person at a terminal.
///
/// # Errors
/// Standard input is a terminal, or cannot be read as text.
pub(super) fn piped(what: &str, hint: &str) -> Result<Zeroizing<String>, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::Usage(hint.to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(BYTES_MAX).read_to_string(&mut text).with_context(|| format!("{what} on standard input"))?;
    Ok(text)
}

/// The line that holds the secret: the first, without space around it.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}
