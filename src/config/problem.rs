//! What is wrong with a configuration, where, and how to fix it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::domain::terminal::is_unsafe;

/// One problem: where, what, and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// `waybill.toml:7`, a variable's name, or `built-in`.
    pub place: String,
    /// The line in the file, if it concerns one.
    pub(super) line: Option<usize>,
    /// What is wrong and how to fix it. Never contains a secret.
    pub what: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may quote the file, so unsafe characters are escaped.
        let letters = self.place.chars().chain(": ".chars()).chain(self.what.chars());
        letters.into_iter().try_for_each(|letter| {
            if is_unsafe(letter) { write!(f, "{}", letter.escape_default()) } else { write!(f, "{letter}") }
        })
    }
}

/// Why the configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file does not exist or cannot be read.
    #[error("{}: cannot read the configuration file: {error}; name a readable one with --config or WAYBILL_CONFIG", path.display())]
    File { path: PathBuf, error: io::Error },
    /// Every problem found.
    #[error("{}", ProblemLines(.0))]
    Problems(Vec<ConfigProblem>),
}

struct ProblemLines<'a>(&'a [ConfigProblem]);

impl fmt::Display for ProblemLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "{count} problem{plural} in the configuration:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
