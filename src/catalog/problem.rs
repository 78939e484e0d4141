//! Problems of a definition or a rate rule, as values: the key concerned, and what is wrong.
//!
//! The catalog returns them; the configuration adds the file and line.

use std::fmt;

/// One thing wrong with a definition or a rate rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionProblem {
    /// The dotted key, without quotes: `resource.things.list.path`, `source.limits.GET /v1/things`, `resources`.
    pub key: String,
    /// What is wrong, and how to fix it.
    pub what: String,
}

impl DefinitionProblem {
    pub fn new(key: impl Into<String>, what: impl fmt::Display) -> DefinitionProblem {
        DefinitionProblem { key: key.into(), what: what.to_string() }
    }
}

impl fmt::Display for DefinitionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Every problem found; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<DefinitionProblem>);

/// The problems in one line, separated by `; `.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
