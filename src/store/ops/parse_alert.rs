//! Warns when a run meets many rows or documents that cannot be parsed.
//!
//! A single one is parked and waits; many of them mean that the API changed, and an operator should look before the copy
//! is full of gaps. Called by `list_page` and `run_progress`, within the transaction that parks.

use crate::domain::{Run, RunState};

/// One unparseable row in this many is tolerated.
const ONE_IN: u64 = 100;

/// Counts a row or a document that could not be read and is parked.
pub(crate) fn count(resource: &str) {
    metrics::counter!("waybill_unreadable_total", "resource" => resource.to_owned()).increment(1);
}

/// Warns once per run if more than 1 % of a page's rows failed to parse; returns whether it has.
pub(crate) fn warn_of_rows(run: &Run, unreadable: u64, rows: u64) -> bool {
    if !run.alarmed && is_much(unreadable, rows) {
        warn(run, unreadable, rows, "more than one in a hundred rows of a page cannot be read");
        return true;
    }
    run.alarmed
}

/// The same for a run's details, at its end.
pub(crate) fn warn_of_details(run: &Run) -> bool {
    // Rows were checked page by page. A deleted shop's run is canceled and needs no warning.
    let parked = run.parked.saturating_sub(run.rejected);
    if !run.alarmed && run.state != RunState::Canceled && is_much(parked, run.listed) {
        warn(run, parked, run.listed, "more than one in a hundred documents of a run cannot be read");
        return true;
    }
    run.alarmed
}

fn is_much(unreadable: u64, of: u64) -> bool {
    unreadable.saturating_mul(ONE_IN) > of
}

fn warn(run: &Run, unreadable: u64, of: u64, what: &str) {
    let (shop, resource) = (run.stream.shop.as_str(), run.stream.resource.as_str());
    let see = format!("GET /api/v1/parked?shop={shop}, while `waybill serve` runs");
    tracing::warn!(shop.id = shop, resource, run.id = run.id.number(), unreadable, of, see, "{what}; they are parked");
}

#[cfg(test)]
mod tests {
    use super::is_much;

    #[test]
    fn one_in_a_hundred_is_borne() {
        for (unreadable, of, much) in [(0, 0, false), (0, 50, false), (1, 50, true), (1, 100, false), (2, 199, true)] {
            assert_eq!(is_much(unreadable, of), much, "{unreadable} of {of}");
        }
        assert!(is_much(1, 0), "re-read by a run that listed nothing");
    }
}
