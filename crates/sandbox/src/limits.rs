//! The API's rate rules: the built-in table, the reader of overrides, and which rule applies to a call.
//!
//! The sandbox judges whether a program keeps the limits, so it shares no code with that program: this reader, this
//! table and this choice of the rule are its own. `tests/it/sandbox/limits.rs` compares them with the program's.
//!
//! A rule is a method and a pattern, `GET /retailer/shipments/*`. A `*` inside matches one part of the path, at the end
//! one or more. Of several rules that match, the one with the most literal parts applies, then the longest.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What the API grants one account; `docs/bol-api.md` has the sources.
const BUILT_IN: [(&str, &str); 21] = [
    ("GET /retailer/insights/performance/indicator", "20/min"),
    ("GET /retailer/inventory", "20/min"),
    ("GET /retailer/invoices", "24/min"),
    ("GET /retailer/invoices/*", "24/min"),
    ("GET /retailer/offers", "25/s"),
    ("GET /retailer/offers/*", "25/s"),
    ("GET /retailer/offers/export/*", "9/h"),
    ("GET /retailer/orders", "25/min"),
    ("GET /retailer/orders/*", "25/s"),
    ("GET /retailer/products/*", "50/min"),
    ("GET /retailer/products/*/offers", "900/min"),
    ("GET /retailer/products/categories", "1/min"),
    ("GET /retailer/promotions", "10/min"),
    ("GET /retailer/promotions/*/products", "10/min"),
    ("GET /retailer/replenishments", "10/min"),
    ("GET /retailer/replenishments/*", "10/min"),
    ("GET /retailer/returns", "20/min"),
    ("GET /retailer/returns/*", "20/min"),
    ("GET /retailer/shipments", "25/min"),
    ("GET /retailer/shipments/*", "50/min"),
    ("GET /retailer/subscriptions", "10/s"),
];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];
/// Longest window, in units of the limit.
const COUNT_MAX: u64 = 1_000_000;

/// At most `calls` in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
    pub window: Duration,
}

impl Limit {
    /// Reads `25/min`, `50/s`, `9/h`, `7/3min` or `50/10s`. None for `none`, which lifts the rule.
    ///
    /// # Errors
    /// The text is anything else; the error names it and the forms.
    pub fn parse(text: &str) -> Result<Option<Limit>, String> {
        if text == "none" {
            return Ok(None);
        }
        let limit = text.split_once('/').and_then(|(calls, window)| {
            let calls = calls.trim().parse().ok().filter(|calls| *calls > 0)?;
            Some(Limit { calls, window: window_of(window.trim())? })
        });
        limit.map(Some).ok_or_else(|| {
            format!("`{text}` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \"7/3min\" or \"none\"")
        })
    }

    /// The window in its largest unit that fits: 180 s are 3 minutes.
    pub(crate) fn in_units(self) -> (u64, Unit) {
        let seconds = self.window.as_secs();
        let fits = |unit: &Unit| seconds.is_multiple_of(unit.seconds());
        let unit = [Unit::Hours, Unit::Minutes].into_iter().find(fits).unwrap_or(Unit::Seconds);
        (seconds / unit.seconds(), unit)
    }
}

/// The units of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Minutes,
    Hours,
}

impl Unit {
    fn read(text: &str) -> Option<Unit> {
        match text {
            "s" | "sec" => Some(Unit::Seconds),
            "m" | "min" => Some(Unit::Minutes),
            "h" => Some(Unit::Hours),
            _ => None,
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Unit::Seconds => 1,
            Unit::Minutes => 60,
            Unit::Hours => 3600,
        }
    }
}

/// Reads `min`, `3min`, `10s`.
fn window_of(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let count = match text.strip_suffix(unit)? {
        "" => 1,
        digits => digits.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?,
    };
    Some(Duration::from_secs(count * Unit::read(unit)?.seconds()))
}

/// As it is written: `25/min`, `7/3min`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = self.in_units();
        let unit = match unit {
            Unit::Seconds => "s",
            Unit::Minutes => "min",
            Unit::Hours => "h",
        };
        if count == 1 { write!(f, "{}/{unit}", self.calls) } else { write!(f, "{}/{count}{unit}", self.calls) }
    }
}

/// One rate rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `GET /retailer/shipments/*`
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) pattern: String,
    /// None: lifted.
    pub(crate) limit: Option<Limit>,
}

impl Rule {
    /// The rule with the most literal parts is the most specific, then the longest, then the last by name.
    fn by_specificity(&self, other: &Rule) -> Ordering {
        let of = |rule: &Rule| {
            let literal = rule.pattern.split('/').filter(|part| !is_open(part)).count();
            (literal, rule.pattern.len())
        };
        of(self).cmp(&of(other)).then_with(|| self.pattern.cmp(&other.pattern))
    }
}

/// All rules, by name.
#[derive(Clone, Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// The built-in table, with these overrides: rule to limit.
    ///
    /// # Errors
    /// All overrides that cannot be read, in one line.
    pub(crate) fn with(overrides: &BTreeMap<String, String>) -> Result<Rules, String> {
        let mut texts: BTreeMap<&str, &str> = BUILT_IN.into_iter().collect();
        texts.extend(overrides.iter().map(|(rule, limit)| (rule.as_str(), limit.as_str())));
        let mut rules = Vec::with_capacity(texts.len());
        let mut problems = Vec::new();
        for (name, text) in texts {
            let pattern = pattern_of(name);
            if pattern.is_none() {
                let hint = "write the rule as \"GET /path/*\": a method, and a path whose parts are names or `*`";
                problems.push(format!("source.limits.{name}: {hint}"));
            }
            let limit = Limit::parse(text);
            match (pattern, limit) {
                (Some((method, pattern)), Ok(limit)) => {
                    let (method, pattern) = (method.to_owned(), pattern.to_owned());
                    rules.push(Rule { name: name.to_owned(), method, pattern, limit });
                }
                (_, Err(problem)) => problems.push(format!("source.limits.{name}: {problem}")),
                (None, Ok(_)) => {}
            }
        }
        if problems.is_empty() { Ok(Rules(rules)) } else { Err(problems.join("; ")) }
    }

    /// The rule that applies to a call, if any; `path` is without query.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<&Rule> {
        let applies = |rule: &&Rule| rule.method == method && covers(&rule.pattern, path);
        self.iter().filter(applies).max_by(|one, other| one.by_specificity(other))
    }

    /// The limit of the rule with this name; None if it is lifted or unknown.
    pub(crate) fn limit(&self, name: &str) -> Option<Limit> {
        self.iter().find(|rule| rule.name == name)?.limit
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

/// Splits `GET /path/*`; None if it is not a rule.
fn pattern_of(name: &str) -> Option<(&str, &str)> {
    let (method, pattern) = name.split_once(' ').filter(|(method, _)| METHODS.contains(method))?;
    let is_literal =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"?#\\*".contains(c));
    let mut parts = pattern.strip_prefix('/')?.split('/');
    parts.all(|part| is_open(part) || is_literal(part)).then_some((method, pattern))
}

/// Whether a pattern covers a path, or a rest of it, part by part.
fn covers(pattern: &str, path: &str) -> bool {
    match (pattern.split_once('/'), path.split_once('/')) {
        (Some((part, pattern)), Some((given, path))) => (is_open(part) || part == given) && covers(pattern, path),
        (Some(_), None) => false,
        (None, Some(_)) => pattern == "*",
        (None, None) => is_open(pattern) || pattern == path,
    }
}

/// Whether a part of a pattern matches any part of a path: `*`, or a placeholder like `{id}`.
fn is_open(part: &str) -> bool {
    part == "*" || part.starts_with('{') && part.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::{Limit, Rules};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn overridden(pairs: &[(&str, &str)]) -> Result<Rules, String> {
        Rules::with(&pairs.iter().map(|(rule, limit)| ((*rule).to_owned(), (*limit).to_owned())).collect())
    }

    #[test]
    fn every_form_of_a_limit_is_read_and_printed_as_written() {
        let forms = [("25/min", 25, 60), ("50/s", 50, 1), ("9/h", 9, 3600), ("7/3min", 7, 180), ("50/10s", 50, 10)];
        for (text, calls, seconds) in forms {
            let limit = Limit { calls, window: Duration::from_secs(seconds) };
            assert_eq!(Limit::parse(text), Ok(Some(limit)));
            assert_eq!(limit.to_string(), text);
        }
        assert_eq!(Limit::parse("none"), Ok(None));
    }

    #[test]
    fn anything_else_is_not_a_limit() {
        let huge = format!("5/{}s", u64::MAX);
        for text in ["", "25", "/", "0/s", "5/0s", "5/day", "-1/s", "5/1000001s", &huge, "5/s3", "4294967296/s"] {
            let error = Limit::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is not a limit")), "{error}");
        }
    }

    #[test]
    fn the_most_specific_rule_applies() {
        let rules = overridden(&[]).unwrap();
        let name = |path: &str| rules.find("GET", path).map(|rule| rule.name.as_str());
        assert_eq!(name("/retailer/shipments"), Some("GET /retailer/shipments"));
        assert_eq!(name("/retailer/shipments/1"), Some("GET /retailer/shipments/*"));
        assert_eq!(name("/retailer/shipments/invoices/requests"), Some("GET /retailer/shipments/*"));
        assert_eq!(name("/retailer/offers/export/1"), Some("GET /retailer/offers/export/*"));
        assert_eq!(name("/retailer/products/1/offers"), Some("GET /retailer/products/*/offers"));
        assert_eq!(name("/retailer/products/categories"), Some("GET /retailer/products/categories"));
        assert_eq!(name("/retailer"), None);
        assert_eq!(name("/retailer/promotions/1"), None);
        assert!(rules.find("POST", "/retailer/shipments").is_none());
    }

    #[test]
    fn overrides_replace_add_and_lift_rules() {
        let rules = overridden(&[("GET /retailer/orders", "none"), ("GET /things/{id}", "3/s")]).unwrap();
        assert_eq!(rules.find("GET", "/retailer/orders").unwrap().limit, None);
        assert_eq!(rules.limit("GET /things/{id}").unwrap().to_string(), "3/s");
        assert_eq!(rules.find("GET", "/things/7").unwrap().name, "GET /things/{id}");
        assert!(rules.find("GET", "/things").is_none() && rules.find("GET", "/things/7/parts").is_none());
    }

    #[test]
    fn every_bad_override_is_named() {
        let error = overridden(&[("GET /a", "often"), ("shipments", "1/s"), ("GET a b", "1/h")]).unwrap_err();
        for rule in ["source.limits.GET /a: `often`", "source.limits.shipments: write", "source.limits.GET a b: write"]
        {
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn the_built_in_table_can_be_read() {
        assert_eq!(Rules::with(&BTreeMap::new()).unwrap().iter().count(), super::BUILT_IN.len());
    }
}
