//! Detects changes of health between two assessments, so that each is logged once.

use std::collections::BTreeMap;

use super::{Code, Health, Level, Reason, State};
use crate::domain::shop_id::ShopId;

/// The subject of a log line: a shop's resource, a shop, or the installation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct About {
    shop_id: Option<ShopId>,
    resource: Option<String>,
    /// None: the resource's state.
    code: Option<Code>,
}

/// Everything that was not well at the last assessment.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<About, State>);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthChange {
    /// Its state changed for another that is not well, or a fault began.
    Unwell { state: State, reason: Reason },
    /// It has recovered.
    Well { shop_id: Option<ShopId>, resource: Option<String>, was: &'static str },
}

impl Known {
    /// Compares with the last assessment, and remembers this one. A first walk in progress is not reported.
    pub fn changes(&mut self, health: &Health) -> Vec<HealthChange> {
        let mut now = BTreeMap::new();
        let mut changes = Vec::new();
        let mut note = |about: About, state: State, reason: &Reason, known: &BTreeMap<About, State>| {
            if known.get(&about) != Some(&state) {
                changes.push(HealthChange::Unwell { state, reason: reason.clone() });
            }
            now.insert(about, state);
        };
        // The sink's state is unknown after each start until MySQL answers; only the answer is reported.
        for fault in health.faults.iter().filter(|fault| fault.code != Code::SinkUnknown) {
            let about =
                About { shop_id: fault.shop_id.clone(), resource: fault.resource.clone(), code: Some(fault.code) };
            let is_failing = fault.code.level() == Level::Failing;
            note(about, if is_failing { State::Failing } else { State::Behind }, fault, &self.0);
        }
        let mut kept = Vec::new();
        for shop in &health.shops {
            for resource in &shop.resources {
                let Some(reason) = resource.reason.as_ref().filter(|reason| reason.code != Code::FirstWalk) else {
                    continue;
                };
                let about = About {
                    shop_id: Some(shop.shop_id.clone()),
                    resource: Some(resource.resource.clone()),
                    code: None,
                };
                if reason.code.blocks_all() {
                    // The fault has its own line; the stream's own state is reported once that is over.
                    kept.extend(self.0.get(&about).map(|state| (about, *state)));
                } else {
                    note(about, resource.state, reason, &self.0);
                }
            }
        }
        now.extend(kept);
        let over = std::mem::take(&mut self.0).into_iter().filter(|(about, _)| !now.contains_key(about));
        changes.extend(over.map(|(about, state)| HealthChange::Well {
            was: about.code.map_or(state.name(), Code::name),
            shop_id: about.shop_id,
            resource: about.resource,
        }));
        self.0 = now;
        changes
    }
}
