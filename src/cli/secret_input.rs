//! Reads a secret from a file, from standard input or from a person at a terminal, for `shops` and `status`. Never from
//! an argument.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::Context as _;
use console::Term;
use zeroize::Zeroizing;

use super::command_error::CommandError;

/// Longer than any secret; bounds the read of a wrong file.
const BYTES_MAX: u64 = 4096;

/// Reads the text of a file that a flag names.
///
/// # Errors
/// It cannot be read as text.
pub(super) fn of_file(flag: &str, file: &Path) -> Result<Zeroizing<String>, CommandError> {
    let read = || {
        let mut text = Zeroizing::new(String::new());
        File::open(file)?.take(BYTES_MAX).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    Ok(read().with_context(|| format!("{flag} {}", file.display()))?)
}

/// Reads what is piped into standard input; on a terminal asks for it, without showing what is typed. `what` it is, and
/// `hint` how else to give it.
///
/// # Errors
/// No one can be asked, or standard input cannot be read as text.
pub(super) fn given(what: &str, hint: &str) -> Result<Zeroizing<String>, CommandError> {
    if std::io::stdin().is_terminal() {
        let terminal = Term::stderr();
        if !terminal.is_term() {
            return Err(CommandError::Usage(hint.to_owned()));
        }
        terminal.write_str(&format!("{what} (it is not shown): "))?;
        return Ok(terminal.read_secure_line().map(Zeroizing::new).with_context(|| format!("{what}: {hint}"))?);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(BYTES_MAX).read_to_string(&mut text).with_context(|| format!("{what} on standard input"))?;
    Ok(text)
}

/// The line that holds the secret: the first, without space around it.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}
