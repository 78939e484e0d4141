//! Why something failed: a class for programs, and a text for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Class of a failure. The names are part of the API and of stored records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The login host refused the credentials.
    Refused,
    /// The login host is down, throttles, or blocks this machine.
    Login,
    /// 429.
    Throttled,
    /// 401: the API did not take a fresh token.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 404 or 410 for several documents in a row: the call itself may be wrong.
    AllNotFound,
    /// Another 4xx.
    Rejected,
    /// 5xx, or a gateway's page.
    Unavailable,
    /// No connection: DNS, network, TLS.
    Unreachable,
    TimedOut,
    /// The connection broke before an answer came.
    Interrupted,
    /// 3xx.
    Redirected,
    /// The answer cannot be parsed.
    Malformed,
    /// The answer does not have the shape that the definition describes.
    Shape,
    TooLarge,
    /// The end of the list is not proved.
    Unproved,
    /// The list contains none of the rows that it contained before.
    Vanished,
    /// The process is shutting down.
    Stopping,
    /// Anything else, including classes of a newer version.
    #[default]
    #[serde(other)]
    Other,
}

impl ErrorClass {
    /// Whether it concerns every call of the resource, not just one document.
    pub fn concerns_all_calls(self) -> bool {
        matches!(
            self,
            ErrorClass::Refused
                | ErrorClass::Login
                | ErrorClass::Throttled
                | ErrorClass::Unauthorized
                | ErrorClass::Forbidden
                | ErrorClass::AllNotFound
                | ErrorClass::Unavailable
                | ErrorClass::Unreachable
                | ErrorClass::TimedOut
                | ErrorClass::Interrupted
                | ErrorClass::Redirected
        )
    }
}

/// A failure's class and text. The text never holds a secret, a token or a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub class: ErrorClass,
    pub text: String,
}

impl Cause {
    pub fn new(class: ErrorClass, text: impl Into<String>) -> Cause {
        Cause { class, text: text.into() }
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause { class: ErrorClass::Other, text }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Cause {
        Cause::from(text.to_owned())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
