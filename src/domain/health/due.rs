//! When the health of a shop changes by time alone: a run becomes late, or failing calls count as an outage.

use super::facts::{AHEAD_MAX_MS, Facts, ResourceFacts, ShopFacts, StreamFacts, outage_after};
use crate::domain::clock::Millis;

/// The first instant after now at which [`super::assess_shop`] may return another result although no record changed.
pub(super) fn next_change(facts: &Facts<'_>, of: &ShopFacts) -> Option<Millis> {
    let streams =
        of.resources.iter().flat_map(|resource| resource.streams.iter().map(move |stream| (resource, stream)));
    let instants = streams.flat_map(|(resource, stream)| instants(facts, resource, stream));
    instants.filter(|at| *at > facts.now).min()
}

/// All such instants of one stream; some may have passed.
fn instants(facts: &Facts<'_>, of: &ResourceFacts, stream: &StreamFacts) -> Vec<Millis> {
    let status = &stream.status;
    let mut found = Vec::new();
    let started = stream.open.iter().map(|run| run.started_at);
    // A record from a clock that was ahead is distrusted until the clock has nearly caught up.
    for at in started.clone().chain(status.last_success_at).chain(status.last_attempt_at) {
        found.extend([at.saturating_sub(AHEAD_MAX_MS), at]);
    }
    for (_, trouble) in status.troubles() {
        found.extend([trouble.since, trouble.since.saturating_add(outage_after(facts))]);
    }
    if let Some(success) = status.last_success_at {
        found.extend(facts.stale_after.map(|limit| success.saturating_add(limit).saturating_add(1)));
        found.extend(facts.ticks.three_missed_at(success, of.every));
    }
    found.extend(started.filter_map(|at| facts.ticks.three_missed_at(at, of.every)));
    found
}
