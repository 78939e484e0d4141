//! The record of calls: who requested what, when, with which result; and totals over it.
//!
//! The check is stricter than the API's own limiter: in **no** interval as long as a rule's window, wherever it
//! begins, may there be more calls than the rule allows. Refused calls count too, and so do calls lost to a fault: the
//! API saw them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::limits::Rules;

/// Maximum calls recorded; further ones are only counted ([`Audit::unrecorded`]), which bounds the memory of long
/// runs.
const CALLS_MAX: usize = 4_000_000;

/// One call to the marketplace or its login host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Monotonic microseconds since the sandbox started, when the request was complete.
    pub at_us: u64,
    /// Empty if the caller is unknown.
    pub client_id: String,
    /// The account whose budget was used; empty if unknown.
    pub account: String,
    pub method: String,
    /// Including its query.
    pub path: String,
    /// The rate rule that applies; None for token calls and unknown paths.
    pub rule: Option<String>,
    /// The requested page, of list calls.
    pub page: Option<u64>,
    /// The requested document, of detail calls.
    pub id: Option<String>,
    /// The status sent, or withheld by a fault.
    pub status: u16,
    /// Bytes of the body before any fault.
    pub bytes: u64,
    pub token: bool,
    /// A fault rule took the call.
    pub faulted: bool,
    /// The client did not get the right answer because of the fault.
    pub spoiled: bool,
    /// Query parameters unknown to the endpoint; the API ignores them silently.
    pub unknown_parameters: u32,
}

/// Totals over all calls since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// API calls, without token calls.
    pub calls: u64,
    pub refused_429: u64,
    pub refused_401: u64,
    /// Of API calls.
    pub statuses: BTreeMap<u16, u64>,
    pub token_requests: u64,
    /// Token requests answered with a token, per client id.
    pub tokens: BTreeMap<String, u64>,
    /// Token requests answered with anything else.
    pub token_refused: u64,
    pub faulted: u64,
    /// Details answered with 200 and not spoiled by a fault.
    pub details_read: u64,
    /// Distinct (client id, document) among them.
    pub details_distinct: u64,
    /// Repeated reads among them.
    pub details_reread: u64,
    pub list_pages: u64,
    /// Unknown parameters seen.
    pub unknown_parameters: u64,
    /// Calls beyond the maximum recorded; if not 0, the other numbers miss them.
    pub unrecorded: u64,
    /// Calls per rule over all accounts.
    pub by_rule: BTreeMap<String, u64>,
    pub budgets: Vec<Budget>,
}

/// One account's use of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub account: String,
    pub rule: String,
    pub calls: u64,
    pub refused_429: u64,
    /// Microseconds of its first and last call.
    pub first_us: u64,
    pub last_us: u64,
    pub span_us: u64,
    /// The rule's current limit, like `25/min`; None: lifted.
    pub limit: Option<String>,
    pub allowed: Option<u32>,
    /// Most calls in any interval as long as the rule's window.
    pub busiest: Option<u32>,
}

impl Audit {
    /// Budgets exceeded in some sliding window.
    pub fn breaches(&self) -> Vec<&Budget> {
        self.budgets.iter().filter(|budget| budget.allowed.zip(budget.busiest).is_some_and(|(a, b)| b > a)).collect()
    }
}

/// The recorded calls. Callers record in the order of arrival as far as threads allow; totals sort.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Vec<Call>,
    unrecorded: u64,
}

impl Ledger {
    pub(crate) fn record(&mut self, call: Call) {
        if self.calls.len() < CALLS_MAX {
            self.calls.push(call);
        } else {
            self.unrecorded += 1;
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Ledger::default();
    }

    pub(crate) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The totals; `rules` holds the current limits.
    pub(crate) fn sums(&self, rules: &Rules) -> Audit {
        let mut audit = Audit { unrecorded: self.unrecorded, ..Audit::default() };
        let mut seen: HashSet<(&str, &str)> = HashSet::new();
        let mut arrivals: HashMap<(&str, &str), (Vec<u64>, u64)> = HashMap::new();
        for call in &self.calls {
            audit.faulted += u64::from(call.faulted);
            if call.token {
                count_token(&mut audit, call);
                continue;
            }
            audit.calls += 1;
            *audit.statuses.entry(call.status).or_default() += 1;
            audit.refused_429 += u64::from(call.status == 429);
            audit.refused_401 += u64::from(call.status == 401);
            audit.unknown_parameters += u64::from(call.unknown_parameters);
            if let Some(rule) = &call.rule {
                *audit.by_rule.entry(rule.clone()).or_default() += 1;
                let (times, refused) = arrivals.entry((&call.account, rule)).or_default();
                times.push(call.at_us);
                *refused += u64::from(call.status == 429);
            }
            if call.status == 200 && !call.spoiled {
                audit.list_pages += u64::from(call.page.is_some());
                if call.id.is_some() {
                    audit.details_read += 1;
                    // Documents of two resources may share an id; their paths differ.
                    audit.details_distinct += u64::from(seen.insert((&call.client_id, &call.path)));
                }
            }
        }
        audit.details_reread = audit.details_read - audit.details_distinct;
        audit.budgets = budgets(arrivals, rules);
        audit
    }
}

fn count_token(audit: &mut Audit, call: &Call) {
    audit.token_requests += 1;
    if call.status == 200 {
        *audit.tokens.entry(call.client_id.clone()).or_default() += 1;
    } else {
        audit.token_refused += 1;
    }
}

fn budgets(arrivals: HashMap<(&str, &str), (Vec<u64>, u64)>, rules: &Rules) -> Vec<Budget> {
    let mut budgets: Vec<Budget> = arrivals
        .into_iter()
        .map(|((account, rule), (mut times, refused_429))| {
            times.sort_unstable();
            let limit = rules.limit(rule);
            let first_us = times.first().copied().unwrap_or_default();
            let last_us = times.last().copied().unwrap_or_default();
            Budget {
                account: account.to_owned(),
                rule: rule.to_owned(),
                calls: times.len() as u64,
                refused_429,
                first_us,
                last_us,
                span_us: last_us - first_us,
                limit: limit.map(|limit| limit.to_string()),
                allowed: limit.map(|limit| limit.calls),
                busiest: limit
                    .map(|limit| busiest(&times, u64::try_from(limit.window.as_micros()).unwrap_or(u64::MAX))),
            }
        })
        .collect();
    budgets.sort_by(|a, b| (&a.account, &a.rule).cmp(&(&b.account, &b.rule)));
    budgets
}

/// Most entries of sorted `times` in any half-open interval of `window` microseconds.
fn busiest(times: &[u64], window: u64) -> u32 {
    let mut oldest = 0;
    let mut most = 0;
    for (newest, at) in times.iter().enumerate() {
        while at - times[oldest] >= window {
            oldest += 1;
        }
        most = most.max(newest - oldest + 1);
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::busiest;
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn the_busiest_interval_is_half_open() {
        assert_eq!(busiest(&[], 10), 0);
        assert_eq!(busiest(&[0, 10, 20], 10), 1);
        assert_eq!(busiest(&[0, 9, 10, 18, 19], 10), 3);
    }

    proptest! {
        #[test]
        fn two_pointers_agree_with_counting(mut times in vec(0u64..500, 0..80), window in 1u64..200) {
            times.sort_unstable();
            let counted = times.iter().map(|from| times.iter().filter(|at| **at >= *from && **at < from + window).count());
            prop_assert_eq!(busiest(&times, window) as usize, counted.max().unwrap_or(0));
        }
    }
}
