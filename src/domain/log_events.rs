//! Catches what some work logs, for tests.

use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The events that some work logs on this thread, and what it returns.
pub(crate) fn logged<T>(work: impl FnOnce() -> T) -> (Vec<serde_json::Value>, T) {
    let lines = Lines::default();
    let to = lines.clone();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || to.clone()).finish();
    let returned = tracing::subscriber::with_default(log, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).expect("one event a line, as JSON")).collect(), returned)
}
