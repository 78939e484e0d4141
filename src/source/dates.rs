//! Compares our clock with the `Date` headers of the API and of the login host.

use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use reqwest::header::{AGE, HeaderMap};

use super::headers::server_date;
use crate::domain::Timestamp;
use crate::domain::clock::Clock;
use crate::domain::clock_check::ClockCheck;

/// Feeds the clock check with the time before and after each call.
pub(super) struct Dates {
    clock: Clock,
    check: Mutex<ClockCheck>,
}

impl Dates {
    pub(super) fn new(clock: Clock) -> Dates {
        Dates { clock, check: Mutex::default() }
    }

    /// The time before a request leaves.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records the headers of an answer. One from a cache on the way (it has an `Age`) is ignored.
    pub(super) fn note(&self, asked: Timestamp, headers: &HeaderMap) {
        if let Some(date) = server_date(headers).filter(|_| !headers.contains_key(AGE)) {
            let received = self.clock.now();
            self.check.lock().unwrap_or_else(PoisonError::into_inner).note(asked, received, date);
        }
    }

    /// As [`ClockCheck::ahead`].
    pub(super) fn clock_ahead(&self) -> Option<SignedDuration> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).ahead()
    }
}
