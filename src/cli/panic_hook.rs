//! Panic hook: logs where a panic happened, never its message, which may quote a document.

use std::fmt;
use std::panic::{Location, PanicHookInfo};

use super::log;

/// Replaces the standard hook, which prints the message, and as text whatever the log's format.
pub(super) fn install() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let place = PanicPlace(panic.location());
        // If logging has not started, the panic must still be visible.
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!(thread = thread.name().unwrap_or("?"), %place, "a thread panicked");
        } else {
            let name = thread.name().unwrap_or("?");
            log::say(tracing::Level::ERROR, format_args!("waybill: thread {name} panicked at {place}"));
        }
    }));
}

/// A source file and line.
struct PanicPlace<'a>(Option<&'a Location<'a>>);

impl fmt::Display for PanicPlace<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => write!(out, "{}:{}", place.file(), place.line()),
            None => out.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::install;
    use crate::domain::log_events::logged;

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        let before = std::panic::take_hook();
        install();
        let (events, caught) = logged(|| {
            std::panic::catch_unwind(|| {
                let customer = "J. de Vries";
                panic!("a customer lives here: {customer}");
            })
        });
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let [event] = events.as_slice() else { panic!("{events:?}") };
        let text = event.to_string();
        assert_eq!(event["message"], "a thread panicked");
        assert!(event["place"].as_str().unwrap().starts_with("src/cli/panic_hook.rs:"), "{text}");
        assert!(!text.contains("Vries") && !text.contains("lives"), "{text}");
    }
}
