//! Describes what an early-ended pass left to do, with the last error and its remedy.

use std::fmt;
use std::time::Duration;

use super::command_error::CommandError;
use super::problems;
use super::table;
use super::watch::Watched;
use crate::domain::document::RunView;
use crate::domain::health::{self, Means, Problem};
use crate::domain::sentence::with_remedy;
use crate::domain::{Timestamp, counted, rough_duration};
use crate::service::Service;

/// The work that a pass left to do.
pub(super) struct Remaining {
    runs: usize,
    reads: u64,
    entries: u64,
    error: Option<LastError>,
}

struct LastError {
    /// Shop and resources; empty: the installation.
    about: String,
    text: String,
    /// How long ago it happened, if known.
    age: Option<Duration>,
    remedy: String,
}

impl Remaining {
    /// Collects it at the end of a pass. `worst`: the worst of its problems, if something fails.
    ///
    /// # Errors
    /// The status or the health cannot be read.
    pub(super) fn of(
        service: &Service,
        watched: &Watched,
        runs: &[RunView],
        worst: Option<&Problem>,
        now: Timestamp,
    ) -> Result<Remaining, CommandError> {
        let status = service.status(None)?;
        let error = match worst {
            Some(problem) => {
                let (text, remedy) = (problem.text.clone(), problem.remedy.clone());
                Some(LastError { about: problems::about(problem, &watched.names), text, age: None, remedy })
            }
            None => last_error(service, watched, now)?,
        };
        let runs = runs.iter().filter(|view| view.run.is_open()).count();
        Ok(Remaining {
            runs,
            reads: status.pending_jobs + status.leased_jobs,
            entries: status.outbox.unwrap_or_default(),
            error,
        })
    }
}

/// The newest error of a stream that has not succeeded since: failures of less than a minute are not yet a problem.
fn last_error(service: &Service, watched: &Watched, now: Timestamp) -> Result<Option<LastError>, CommandError> {
    let mut last: Option<(Timestamp, LastError)> = None;
    for shop in service.shops_health(&watched.names.keys().cloned().collect())? {
        for resource in shop.resources {
            let is_newest = |at: Timestamp| last.as_ref().is_none_or(|(newest, _)| *newest < at);
            let is_open = |at: Timestamp| resource.last_success_at.is_none_or(|success| success < at);
            let is_ours = watched.takes(&shop.shop_id, &resource.resource);
            let Some(error) = resource.last_error.filter(|error| is_ours && is_open(error.at) && is_newest(error.at))
            else {
                continue;
            };
            let remedy = health::class_remedy(&resource.resource, error.class, Means::Commands);
            let about = format!("{}, {}", problems::shop(&shop.shop_id, &watched.names), resource.resource);
            let age = Some(now.since(error.at));
            last = Some((error.at, LastError { about, text: error.text, age, remedy }));
        }
    }
    Ok(last.map(|(_, error)| error))
}

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.runs as u64, "open run", "open runs"),
            (self.reads, "call", "calls"),
            (self.entries, "entry for the sink", "entries for the sink"),
        ];
        let left = counts.iter().filter(|(count, ..)| *count > 0);
        let left: Vec<String> = left.map(|(count, one, many)| counted(*count, one, many)).collect();
        if !left.is_empty() {
            write!(f, ", with {} left to do", left.join(", "))?;
        }
        f.write_str("; the rest resumes at the next start")?;
        let Some(LastError { about, text, age, remedy }) = &self.error else { return Ok(()) };
        let about = if about.is_empty() { String::new() } else { format!(" of {about}") };
        let age = age.map(|age| format!(" ({} ago)", rough_duration(age))).unwrap_or_default();
        f.write_str(&table::clean(&format!(". Last error{about}{age}: {}", with_remedy(text, remedy))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LastError, Remaining};

    #[test]
    fn remaining_work_is_counted_and_the_last_error_has_its_remedy() {
        let nothing = Remaining { runs: 0, reads: 0, entries: 0, error: None };
        assert_eq!(nothing.to_string(), "; the rest resumes at the next start");
        let (about, text, remedy) =
            ("A shop, orders".to_owned(), "the API is \u{1b}[2Jaway".to_owned(), "wait".to_owned());
        let error = Some(LastError { about, text, age: Some(Duration::from_secs(5)), remedy });
        assert_eq!(
            Remaining { runs: 2, reads: 1, entries: 7, error }.to_string(),
            ", with 2 open runs, 1 call, 7 entries for the sink left to do; the rest resumes at the next start. Last error of A \
             shop, orders (5 s ago): the API is ·[2Jaway. Remedy: wait"
        );
    }
}
