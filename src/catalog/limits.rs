//! Rate rules: `"GET /retailer/shipments/*" = "50/min"`, and which rule applies to a call.
//!
//! The most specific rule wins, as in the API's own conventions: more literal path parts first, then the longer
//! pattern. A `*` in the middle matches one path part, at the end one or more; a placeholder like `{id}` matches one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{DefinitionProblem, Problems};
use crate::domain::with_clock_margin;

/// At most `calls` in any interval of length `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub calls: u32,
    pub window: Duration,
}

impl Limit {
    /// How long a slot rests after its call has ended: the window, longer by what our clock may run fast.
    pub fn rest(&self) -> Duration {
        with_clock_margin(self.window)
    }

    /// Reads `25/min`, `50/s`, `9/h`, `7/3min`, `50/10s`; `none` lifts the rule.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<Option<Limit>, String> {
        let wrong =
            || format!("`{text}` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \"7/3min\" or \"none\"");
        if text == "none" {
            return Ok(None);
        }
        let (calls, window) = text.split_once('/').ok_or_else(wrong)?;
        let calls: u32 = calls.trim().parse().map_err(|_| wrong())?;
        let window = window.trim();
        let digits = window.chars().take_while(char::is_ascii_digit).count();
        let (count, unit) = window.split_at(digits);
        let count: u64 = if count.is_empty() { 1 } else { count.parse().map_err(|_| wrong())? };
        let seconds = match unit {
            "s" | "sec" => 1,
            "min" | "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        if calls == 0 || count == 0 || count > 1_000_000 {
            return Err(wrong());
        }
        Ok(Some(Limit { calls, window: Duration::from_secs(count * seconds) }))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs();
        let (count, unit) = match seconds {
            s if s % 3600 == 0 => (s / 3600, "h"),
            s if s % 60 == 0 => (s / 60, "min"),
            s => (s, "s"),
        };
        if count == 1 { write!(f, "{}/{unit}", self.calls) } else { write!(f, "{}/{count}{unit}", self.calls) }
    }
}

/// One rate rule; its name is its pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `GET /retailer/shipments/*`
    pub name: String,
    /// None: lifted by configuration.
    pub limit: Option<Limit>,
}

impl Rule {
    /// The limit as written in a configuration.
    pub fn limit_text(&self) -> String {
        self.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
    }

    /// The name of the rule for exactly this path, with placeholders as wildcards.
    pub fn name_for(method: &str, path: &str) -> String {
        format!("{method} {}", path.replace("{id}", "*").replace("{parent}", "*"))
    }
}

/// All rules of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTable(Vec<Rule>);

impl RuleTable {
    /// Builds the table from `pattern -> limit` texts; later maps override earlier ones.
    ///
    /// # Errors
    /// Every bad entry.
    pub fn build<'a>(layers: impl IntoIterator<Item = &'a BTreeMap<String, String>>) -> Result<RuleTable, Problems> {
        let (rules, problems) = RuleTable::draft(layers);
        if problems.is_empty() { Ok(rules) } else { Err(Problems(problems)) }
    }

    /// Like [`RuleTable::build`], but returns an incomplete table too. With problems it may only be used to check which
    /// paths have a rule at all: a rule with an unreadable limit is included without a limit.
    pub fn draft<'a>(
        layers: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    ) -> (RuleTable, Vec<DefinitionProblem>) {
        let mut rules: BTreeMap<String, Option<Limit>> = BTreeMap::new();
        let mut problems = Vec::new();
        for (pattern, text) in layers.into_iter().flatten() {
            let key = || format!("source.limits.{pattern}");
            if !is_pattern(pattern) {
                let hint = "write the rule as \"GET /path/*\": a method, and a path whose parts are names or `*`";
                problems.push(DefinitionProblem::new(key(), hint));
            }
            let limit = Limit::parse(text).unwrap_or_else(|what| {
                problems.push(DefinitionProblem::new(key(), what));
                None
            });
            rules.insert(pattern.clone(), limit);
        }
        (RuleTable(rules.into_iter().map(|(name, limit)| Rule { name, limit }).collect()), problems)
    }

    /// The most specific rule for a call. `path` has no query and may contain placeholders.
    pub fn find(&self, method: &str, path: &str) -> Option<&Rule> {
        self.0
            .iter()
            .filter_map(|rule| {
                let (rule_method, pattern) = rule.name.split_once(' ')?;
                (rule_method == method && matches(pattern, path)).then(|| (specificity(pattern), rule))
            })
            .max_by_key(|(specificity, _)| *specificity)
            .map(|(_, rule)| rule)
    }

    /// All rules, by name.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }
}

fn is_pattern(pattern: &str) -> bool {
    pattern.split_once(' ').is_some_and(|(method, path)| {
        matches!(method, "GET" | "POST" | "PUT" | "DELETE" | "HEAD") && path.starts_with('/') && {
            let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '*');
            path.split('/').skip(1).all(|part| is_open(part) || !part.is_empty() && part.chars().all(plain))
        }
    })
}

/// Whether a part of a pattern matches any path part.
fn is_open(part: &str) -> bool {
    part == "*" || (part.starts_with('{') && part.ends_with('}'))
}

fn specificity(pattern: &str) -> (usize, usize) {
    (pattern.split('/').filter(|part| !is_open(part)).count(), pattern.len())
}

fn matches(pattern: &str, path: &str) -> bool {
    let wanted: Vec<&str> = pattern.split('/').collect();
    let given: Vec<&str> = path.split('/').collect();
    let open_end = wanted.last() == Some(&"*");
    if given.len() < wanted.len() || (given.len() > wanted.len() && !open_end) {
        return false;
    }
    wanted.iter().zip(&given).all(|(want, have)| is_open(want) || want == have)
}

#[cfg(test)]
mod tests {
    use super::{Limit, RuleTable};
    use std::collections::BTreeMap;

    fn table() -> RuleTable {
        let rules = [
            ("GET /retailer/shipments", "25/min"),
            ("GET /retailer/shipments/*", "50/min"),
            ("GET /retailer/offers/*", "25/s"),
            ("GET /retailer/offers/export", "9/h"),
            ("GET /retailer/products/*", "50/min"),
            ("GET /retailer/products/*/offers", "900/min"),
        ];
        let map: BTreeMap<String, String> = rules.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        RuleTable::build([&map]).unwrap()
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let name = |path: &str| table().find("GET", path).map(|rule| rule.name.clone());
        assert_eq!(name("/retailer/shipments").as_deref(), Some("GET /retailer/shipments"));
        assert_eq!(name("/retailer/shipments/1").as_deref(), Some("GET /retailer/shipments/*"));
        assert_eq!(name("/retailer/shipments/invoices/requests").as_deref(), Some("GET /retailer/shipments/*"));
        assert_eq!(name("/retailer/offers/export").as_deref(), Some("GET /retailer/offers/export"));
        assert_eq!(name("/retailer/products/1/offers").as_deref(), Some("GET /retailer/products/*/offers"));
        assert_eq!(name("/retailer/orders"), None);
        let placeholder = BTreeMap::from([("GET /things/{id}".to_owned(), "1/s".to_owned())]);
        let placeholder = RuleTable::build([&placeholder]).unwrap();
        for path in ["/things/{id}", "/things/7"] {
            assert!(placeholder.find("GET", path).is_some(), "{path}: the template and a real path share one budget");
        }
        assert!(placeholder.find("GET", "/things").is_none() && placeholder.find("GET", "/things/7/parts").is_none());
        assert_eq!(table().find("POST", "/retailer/shipments"), None);
    }

    #[test]
    fn a_limit_prints_as_it_was_written() {
        for text in ["25/min", "50/s", "9/h", "7/3min", "50/10s"] {
            assert_eq!(Limit::parse(text).unwrap().unwrap().to_string(), text);
        }
        assert_eq!(Limit::parse("none"), Ok(None));
        for text in ["", "25", "0/s", "5/0s", "5/day", "-1/s", "5/99999999999s"] {
            assert!(Limit::parse(text).is_err(), "{text}");
        }
    }
}
