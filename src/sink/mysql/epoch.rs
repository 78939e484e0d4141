//! The epoch that this process writes with.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sink without an owner: for commands that write no document, and tests.
const OFF: u64 = 0;
/// The process must become the owner first.
const PENDING: u64 = u64::MAX;

/// Which writes pass the fence.
pub(super) struct Fence(AtomicU64);

/// What a write may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    /// No process owns this sink: writes are not fenced.
    Off,
    /// Not known yet: no write.
    Pending,
    Number(u64),
}

impl Fence {
    pub(super) fn off() -> Fence {
        Fence(AtomicU64::new(OFF))
    }

    pub(super) fn set(&self, epoch: Epoch) {
        let number = match epoch {
            Epoch::Off => OFF,
            Epoch::Pending => PENDING,
            Epoch::Number(number) => number,
        };
        self.0.store(number, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> Epoch {
        match self.0.load(Ordering::Acquire) {
            OFF => Epoch::Off,
            PENDING => Epoch::Pending,
            number => Epoch::Number(number),
        }
    }
}
