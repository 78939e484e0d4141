//! The dates on the answers of the API and of the login host, for the check of our own clock.

use std::sync::{Mutex, PoisonError};

use reqwest::header::{AGE, HeaderMap};

use super::headers::server_date;
use crate::domain::clock::{Clock, Millis};
use crate::domain::clock_check::ClockCheck;

/// Reads our clock around calls.
pub(super) struct Dates {
    clock: Clock,
    check: Mutex<ClockCheck>,
}

impl Dates {
    pub(super) fn new(clock: Clock) -> Dates {
        Dates { clock, check: Mutex::default() }
    }

    /// Before a request leaves.
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Notes the head of an answer. What a cache on the way says of itself counts as nothing.
    pub(super) fn note(&self, asked: Millis, headers: &HeaderMap) {
        if let Some(date) = server_date(headers).filter(|_| !headers.contains_key(AGE)) {
            let received = self.clock.now();
            self.check.lock().unwrap_or_else(PoisonError::into_inner).note(asked, received, date);
        }
    }

    /// As [`ClockCheck::ahead`].
    pub(super) fn clock_ahead(&self) -> Option<Millis> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).ahead()
    }
}
