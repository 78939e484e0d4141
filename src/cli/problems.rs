//! What a command that ends says of the problems that it leaves, one line each.

use std::collections::BTreeMap;

use super::table;
use crate::domain::ShopId;
use crate::domain::health::Problem;
use crate::domain::sentence::with_remedy;

/// Names of shops.
type Names = BTreeMap<ShopId, String>;

/// `First shop (k3v9x0q2m1ab), orders, returns`; empty: the whole installation.
pub(super) fn about(problem: &Problem, names: &Names) -> String {
    let shop = problem.shop_id.as_ref().map(|id| shop(id, names));
    shop.into_iter().chain(problem.resources.iter().cloned()).collect::<Vec<_>>().join(", ")
}

/// A shop's name with its id, as names need not differ.
pub(super) fn shop(id: &ShopId, names: &Names) -> String {
    names.get(id).map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

/// The problem with its remedy.
pub(super) fn line(problem: &Problem, names: &Names) -> String {
    let about = about(problem, names);
    let about = if about.is_empty() { about } else { format!("{about}: ") };
    table::clean(&format!("{about}{}", with_remedy(&problem.text, &problem.remedy)))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::line;
    use crate::domain::health::{Code, Problem};

    #[test]
    fn a_line_names_shop_and_resources_once_and_ends_the_text_once() {
        let names = BTreeMap::from([("k3v".into(), "A \u{1b}shop".to_owned())]);
        let problem = |shop: Option<&str>, resources: &[&str]| Problem {
            code: Code::Refused,
            shop_id: shop.map(Into::into),
            resources: resources.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>(),
            text: "is the path right?".to_owned(),
            remedy: "correct it".to_owned(),
        };
        let said = line(&problem(Some("k3v"), &["orders", "returns"]), &names);
        assert_eq!(said, "A ·shop (k3v), orders, returns: is the path right? Remedy: correct it");
        assert_eq!(line(&problem(None, &[]), &names), "is the path right? Remedy: correct it");
        assert_eq!(line(&problem(Some("x"), &[]), &names), "x: is the path right? Remedy: correct it");
    }
}
