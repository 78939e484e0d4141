//! What a check finds: a subject, how it is, and the remedy.

use serde::Serialize;

/// Result of a check. The names are part of the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckLevel {
    Ok,
    /// It works, but deserves attention.
    Warn,
    Fail,
}

/// A checked subject and its result; a failure names the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: String,
    pub level: CheckLevel,
    pub text: String,
}

impl Finding {
    pub(super) fn new(subject: impl Into<String>, level: CheckLevel, text: impl Into<String>) -> Finding {
        Finding { subject: subject.into(), level, text: text.into() }
    }

    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Ok, text)
    }

    pub fn warn(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Warn, text)
    }

    pub fn fail(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Fail, text)
    }

    /// A finding from a result: ok or fail.
    pub fn of(subject: impl Into<String>, found: Result<String, String>) -> Finding {
        match found {
            Ok(text) => Finding::ok(subject, text),
            Err(text) => Finding::fail(subject, text),
        }
    }
}
