//! Standard error while progress bars are drawn: log lines go above the bars without corrupting them.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::MultiProgress;

/// The bars currently drawn. Locked while a line is written: one that is written while the bars end would erase them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Sets the bars above which lines are printed; None: no bars. Once it returns, no line is being written above others.
pub(super) fn set(bars: Option<MultiProgress>) {
    *BARS.lock().unwrap_or_else(PoisonError::into_inner) = bars;
}

/// Standard error, above the bars.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bars = BARS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bars) = &*bars {
            return bars.suspend(|| io::stderr().write(bytes));
        }
        // A pipe that nothing reads must not keep the lock.
        drop(bars);
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
