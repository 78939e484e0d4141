//! Problems of the streams that a pass was asked for: its exit code and its messages follow from them alone.

use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;
use super::{Health, Reason, ResourceHealth};
use crate::domain::shop_id::ShopId;
use crate::domain::timestamp::Timestamp;

/// One problem, of one resource or of several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    /// None: of the whole installation.
    pub shop_id: Option<ShopId>,
    /// Empty: of the whole shop or installation.
    pub resources: BTreeSet<String>,
    pub text: String,
    pub remedy: String,
}

impl Problem {
    /// Whether it is the state of a stream, unlike what was parked and what concerns the whole installation.
    pub fn is_state(&self) -> bool {
        self.shop_id.is_some() && self.code != Code::Parked
    }
}

impl Health {
    /// What is not well, worst first, of the resources of shops that `takes` names and of the installation as a whole.
    /// A pass that `began` then has read a resource since is not late with it, whatever the schedule says.
    pub fn problems(&self, began: Timestamp, takes: impl Fn(&ShopId, &str) -> bool) -> Vec<Problem> {
        let is_whole = |reason: &&Reason| reason.shop_id.is_none();
        let whole: BTreeSet<Code> = self.faults.iter().filter(is_whole).map(|reason| reason.code).collect();
        let resources = self.shops.iter().flat_map(|shop| &shop.resources);
        // A fault of the installation is the state of each resource that it blocks, too.
        let states = resources
            .filter(|resource| !is_late_only(resource, began))
            .filter_map(|resource| resource.reason.as_ref())
            .filter(|reason| !whole.contains(&reason.code));
        let is_asked_for = |reason: &&Reason| match (&reason.shop_id, &reason.resource) {
            (Some(shop), Some(resource)) => takes(shop, resource),
            _ => true,
        };
        // Resources with the same problem and the same remedy share a line.
        let mut alike: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for reason in states.chain(&self.faults).filter(is_asked_for) {
            let key = (reason.code, reason.shop_id.clone(), reason.text.clone(), reason.remedy.clone());
            alike.entry(key).or_default().extend(reason.resource.clone());
        }
        let problem = |((code, shop_id, text, remedy), resources)| Problem { code, shop_id, resources, text, remedy };
        let mut problems: Vec<Problem> = alike.into_iter().map(problem).collect();
        problems.sort_by_key(|problem| std::cmp::Reverse((problem.code.level(), problem.code)));
        problems
    }
}

/// Whether a resource is only late by the schedule, though it was read since `began`.
fn is_late_only(resource: &ResourceHealth, began: Timestamp) -> bool {
    let is_late = |reason: &Reason| matches!(reason.code, Code::Behind | Code::Stale);
    resource.reason.as_ref().is_some_and(is_late) && resource.last_success_at.is_some_and(|at| at >= began)
}

impl Code {
    /// Whether it may be only that work goes on: no news at the end of a pass that was stopped.
    pub fn is_progress(self) -> bool {
        matches!(
            self,
            Code::FirstWalk | Code::ArchiveMoving | Code::Backlog | Code::Behind | Code::Stale | Code::SinkChanged
        )
    }
}
