//! When the health of a shop changes by time alone: a run becomes late, or failing calls count as an outage.

use super::facts::{AHEAD_MAX, Facts, ResourceFacts, ShopFacts, StreamFacts, outage_after};
use super::ticks::MILLISECOND;
use crate::domain::timestamp::Timestamp;

/// The first instant after now at which [`super::assess_shop`] may return another result although no record changed.
pub(super) fn next_change(facts: &Facts<'_>, of: &ShopFacts) -> Option<Timestamp> {
    let streams =
        of.resources.iter().flat_map(|resource| resource.streams.iter().map(move |stream| (resource, stream)));
    let instants = streams.flat_map(|(resource, stream)| instants(facts, resource, stream));
    instants.filter(|at| *at > facts.now).min()
}

/// All such instants of one stream; some may have passed.
fn instants(facts: &Facts<'_>, of: &ResourceFacts, stream: &StreamFacts) -> Vec<Timestamp> {
    let status = &stream.status;
    let mut found = Vec::new();
    let started = stream.open.iter().map(|run| run.started_at);
    // A record from a clock that was ahead is distrusted until the clock has nearly caught up.
    for at in started.clone().chain(status.last_success_at).chain(status.last_attempt_at) {
        found.extend([at - AHEAD_MAX, at]);
    }
    for (_, trouble) in status.troubles() {
        found.extend([trouble.since, trouble.since + outage_after(facts)]);
    }
    if let Some(success) = status.last_success_at {
        found.extend(facts.stale_after.map(|limit| success + limit + MILLISECOND));
        found.extend(facts.ticks.three_missed_at(success, of.every));
    }
    found.extend(started.filter_map(|at| facts.ticks.three_missed_at(at, of.every)));
    found
}
