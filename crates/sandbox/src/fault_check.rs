//! Refuses fault rules that can never take effect, with the reason and the remedy.
//!
//! Called by the control that replaces the rules. A rule that silently never fires makes a test pass for the wrong
//! reason.

use crate::apply_fault::is_header;
use crate::fault::{Fault, FaultKind};

const TOKEN: &str = "/token";
const SHIPMENTS: &str = "/retailer/shipments";
/// Any one part of a path.
const ANY: &str = "{id}";

/// The lists that the sandbox serves.
pub(crate) const LISTS: [&str; 10] = [
    SHIPMENTS,
    "/retailer/shipments/invoices/requests",
    "/retailer/orders",
    "/retailer/returns",
    "/retailer/replenishments",
    "/retailer/inventory",
    "/retailer/invoices",
    "/retailer/promotions",
    "/retailer/promotions/{id}/products",
    "/retailer/offers",
];

/// The documents that it serves.
pub(crate) const DOCUMENTS: [&str; 7] = [
    "/retailer/shipments/{id}",
    "/retailer/orders/{id}",
    "/retailer/returns/{id}",
    "/retailer/replenishments/{id}",
    "/retailer/invoices/{id}",
    "/retailer/promotions/{id}",
    "/retailer/offers/{id}",
];

/// Checks all rules together; `is_shop` finds a client id.
///
/// # Errors
/// The first rule that can never take effect.
pub(crate) fn check(rules: &[Fault], is_shop: impl Fn(&str) -> bool) -> Result<(), String> {
    for (at, rule) in rules.iter().enumerate() {
        let wrong = |what: String| format!("rule {}: {what}", at + 1);
        if let Some(client_id) = rule.client_id.as_deref().filter(|client_id| !is_shop(client_id)) {
            let what = format!("client_id `{client_id}`: no shop has it; add the shop first (POST /_sandbox/shops)");
            return Err(wrong(what));
        }
        check_match(&rule.prefix).map_err(|what| wrong(format!("match `{}`: {what}", rule.prefix)))?;
        check_counts(rule).map_err(wrong)?;
        check_kind(rule).map_err(wrong)?;
        if let Some(before) = rules.iter().take(at).position(|before| hides(before, rule)) {
            let what = format!(
                "rule {} takes each call that this one matches; put this one first, or give rule {0} `times`",
                before + 1
            );
            return Err(wrong(what));
        }
    }
    Ok(())
}

fn check_match(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() || may_match(prefix, |_| true) {
        return Ok(());
    }
    if let Some((method, path)) = prefix.split_once(' ') {
        return Err(format!(
            "it begins with the method {method}, and rules match paths; write `{path}` (the sandbox serves GET, and POST {TOKEN})"
        ));
    }
    if let Some(at) = prefix.find("/retailer/").filter(|at| *at > 0) {
        let path = prefix.get(at..).unwrap_or_default();
        return Err(format!("paths are compared without the base address; write `{path}`"));
    }
    if prefix.starts_with("/token?") {
        return Err(format!("logins are compared without their query; write `{TOKEN}`"));
    }
    if let Some((path, _)) = prefix.split_once('?') {
        return Err(format!("the path before the ? must be a whole one, and none is `{path}`; {}", served()));
    }
    Err(format!("no call begins with it; {}", served()))
}

fn served() -> String {
    let lists = LISTS.into_iter().chain(DOCUMENTS);
    format!("the sandbox serves {TOKEN}, {}", lists.collect::<Vec<_>>().join(", "))
}

fn check_counts(rule: &Fault) -> Result<(), String> {
    if rule.times == Some(0) {
        return Err("times 0: it takes no call; give at least 1, or leave it out to take every call".to_owned());
    }
    match rule.probability {
        Some(chance) if !(chance > 0.0 && chance <= 1.0) => {
            Err(format!("probability {chance}: give more than 0 and at most 1, or leave it out to take every call"))
        }
        _ => Ok(()),
    }
}

fn check_kind(rule: &Fault) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("kind {what}"));
    match &rule.kind {
        FaultKind::Status { code, .. } if !(200..=999).contains(code) => {
            Err(format!("kind status: {code} is not a final HTTP status; give one from 200 to 999, like 503"))
        }
        FaultKind::Status { headers, .. } => match headers.iter().find(|(name, value)| !is_header(name, value)) {
            Some((name, _)) => Err(format!(
                "kind status: the header `{}` cannot be sent; use letters, digits, - and _, and a value without control characters",
                name.escape_default()
            )),
            None => Ok(()),
        },
        FaultKind::Slow { ms: 0 } => wrong("slow: 0 ms is no delay; give at least 1"),
        FaultKind::WrongContentLength { by: 0 } => {
            wrong("wrong_content_length: off by 0 is right; give another number")
        }
        FaultKind::Insert { text } if text.is_empty() => wrong("insert: the text is empty; give one"),
        FaultKind::SamePage if !may_match(&rule.prefix, |path| LISTS.contains(&path)) => {
            wrong("same_page: it acts on lists, and none begins with this match; match one, like /retailer/orders")
        }
        FaultKind::Reversed if !may_match(&rule.prefix, |path| path == SHIPMENTS) => {
            Err(format!("kind reversed: it acts on the list of shipments alone; match {SHIPMENTS}"))
        }
        FaultKind::Garbage
        | FaultKind::Nested { .. }
        | FaultKind::Huge { .. }
        | FaultKind::GzipBomb { .. }
        | FaultKind::Cut { .. }
        | FaultKind::Slow { .. }
        | FaultKind::Drip { .. }
        | FaultKind::Reset
        | FaultKind::ResetAfter { .. }
        | FaultKind::WrongContentLength { .. }
        | FaultKind::BadChunk
        | FaultKind::Insert { .. }
        | FaultKind::Redirect { .. }
        | FaultKind::SamePage
        | FaultKind::Reversed
        | FaultKind::Echo { .. } => Ok(()),
    }
}

/// Whether an earlier rule leaves no call to a later one.
fn hides(before: &Fault, rule: &Fault) -> bool {
    let takes_all = before.skip == 0 && before.times.is_none() && before.probability.is_none_or(|chance| chance >= 1.0);
    let is_for_its_clients = before.client_id.is_none() || before.client_id == rule.client_id;
    takes_all && is_for_its_clients && rule.prefix.starts_with(&before.prefix)
}

/// Whether a call of one of the chosen paths can begin with this prefix.
fn may_match(prefix: &str, chosen: impl Fn(&str) -> bool) -> bool {
    let paths = LISTS.into_iter().chain(DOCUMENTS).filter(|path| chosen(path));
    match prefix.split_once('?') {
        Some((path, _)) => paths.into_iter().any(|pattern| is_of(pattern, path)),
        None => paths.chain([TOKEN].into_iter().filter(|path| chosen(path))).any(|pattern| begins(pattern, prefix)),
    }
}

fn fits(pattern: &str, part: &str) -> bool {
    pattern == part || pattern == ANY && !part.is_empty()
}

/// Whether a path is one of a pattern.
fn is_of(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == parts.clone().count() && patterns.zip(parts).all(|(pattern, part)| fits(pattern, part))
}

/// Whether a path of a pattern can begin with this prefix.
fn begins(pattern: &str, prefix: &str) -> bool {
    let (whole, last) = prefix.rsplit_once('/').map_or((None, prefix), |(whole, last)| (Some(whole), last));
    let mut patterns = pattern.split('/');
    let mut whole = whole.into_iter().flat_map(|whole| whole.split('/'));
    whole.all(|part| patterns.next().is_some_and(|pattern| fits(pattern, part)))
        && patterns.next().is_some_and(|pattern| pattern == ANY || pattern.starts_with(last))
}

#[cfg(test)]
mod tests {
    use super::{DOCUMENTS, LISTS, check, check_match};
    use crate::fault::{Fault, FaultKind};

    #[test]
    fn a_match_is_a_prefix_of_what_is_served() {
        for prefix in [
            "",
            "/",
            "/t",
            "/token",
            "/retailer",
            "/retailer/",
            "/retailer/ship",
            "/retailer/shipments",
            "/retailer/shipments/",
            "/retailer/shipments/A1",
            "/retailer/shipments?page=2",
            "/retailer/promotions/P/prod",
        ] {
            assert_eq!(check_match(prefix), Ok(()), "{prefix}");
        }
        for served in LISTS.into_iter().chain(DOCUMENTS) {
            assert_eq!(check_match(served), Ok(()));
        }
        for (prefix, part) in [
            ("retailer/orders", "no call begins with it"),
            ("/retailer/shipmens", "no call begins with it; the sandbox serves /token, /retailer/shipments, "),
            ("/retailer/shipments/A1/x", "no call begins"),
            ("/retailer/inventory/7", "no call begins"),
            ("/retailer/public/ratelimits", "no call begins"),
            ("/retailer/ship?page=1", "must be a whole one, and none is `/retailer/ship`"),
            ("/token?grant_type=x", "without their query; write `/token`"),
            ("GET /retailer/orders", "the method GET, and rules match paths; write `/retailer/orders`"),
            ("http://127.0.0.1:8090/retailer/orders", "without the base address; write `/retailer/orders`"),
            ("/api/retailer/orders", "write `/retailer/orders`"),
        ] {
            let refused = check_match(prefix).unwrap_err();
            assert!(refused.contains(part), "{prefix}: {refused}");
        }
    }

    #[test]
    fn a_rule_behind_one_that_takes_all_is_refused() {
        let all = Fault::always("/retailer", FaultKind::Reset);
        let some = Fault::times("/retailer/orders", FaultKind::Reset, 1);
        let checked = |rules: &[Fault]| check(rules, |client_id| client_id == "a");
        assert_eq!(checked(&[some.clone(), all.clone()]), Ok(()));
        assert!(checked(&[all.clone(), some.clone()]).unwrap_err().starts_with("rule 2: rule 1 takes each call"));
        let of_one = Fault { client_id: Some("a".into()), ..all.clone() };
        for first in [
            Fault { skip: 1, ..all.clone() },
            Fault { times: Some(9), ..all.clone() },
            Fault { probability: Some(0.5), ..all.clone() },
            of_one.clone(),
        ] {
            assert_eq!(checked(&[first, some.clone()]), Ok(()));
        }
        assert!(checked(&[of_one.clone(), Fault { client_id: Some("a".into()), ..some }]).is_err());
        assert!(checked(&[Fault { client_id: Some("b".into()), ..of_one }]).unwrap_err().contains("client_id `b`"));
    }
}
