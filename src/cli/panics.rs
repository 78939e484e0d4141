//! What is told of a panic: where it was, never what it says, which may quote a document.

use std::fmt;
use std::panic::{Location, PanicHookInfo};

use super::log;

/// Takes the place of the standard hook, which prints what a panic says, and as text whatever the log's form is.
pub(super) fn tell_place_only() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        let place = Place(panic.location());
        // Before the log begins, or without one, somebody must hear of it all the same.
        if tracing::enabled!(tracing::Level::ERROR) {
            tracing::error!(thread = thread.name().unwrap_or("?"), %place, "a thread panicked");
        } else {
            let name = thread.name().unwrap_or("?");
            log::say(tracing::Level::ERROR, format_args!("waybill: thread {name} panicked at {place}"));
        }
    }));
}

/// A file and a line of it.
struct Place<'a>(Option<&'a Location<'a>>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => write!(out, "{}:{}", place.file(), place.line()),
            None => out.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tell_place_only;
    use crate::domain::log_events::logged;

    #[test]
    fn of_a_panic_the_place_is_told_and_nothing_that_it_says() {
        let before = std::panic::take_hook();
        tell_place_only();
        let (events, caught) = logged(|| {
            std::panic::catch_unwind(|| {
                let customer = "J. de Vries";
                panic!("a customer lives here: {customer}");
            })
        });
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let [event] = events.as_slice() else { panic!("{events:?}") };
        let told = event.to_string();
        assert_eq!(event["message"], "a thread panicked");
        assert!(event["place"].as_str().unwrap().starts_with("src/cli/panics.rs:"), "{told}");
        assert!(!told.contains("Vries") && !told.contains("lives"), "{told}");
    }
}
