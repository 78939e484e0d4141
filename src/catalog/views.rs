//! The SQL views that ship with the binary (`sql/views`): everyday questions across resources.
//!
//! The first line of each says what it answers and which resources it needs. `waybill schema print --views` prints
//! them; Waybill never creates them.

use std::sync::Arc;

use super::Definition;

const VIEWS: [&str; 8] = [
    include_str!("../../sql/views/v_fulfilment_by_month.sql"),
    include_str!("../../sql/views/v_late_shipments.sql"),
    include_str!("../../sql/views/v_open_orders.sql"),
    include_str!("../../sql/views/v_returns_by_reason.sql"),
    include_str!("../../sql/views/v_revenue_per_product_and_week.sql"),
    include_str!("../../sql/views/v_shipments_per_transporter.sql"),
    include_str!("../../sql/views/v_shipments_without_tracking.sql"),
    include_str!("../../sql/views/v_stock_without_sales.sql"),
];

/// The views that need only these resources, with default table names.
pub fn views(definitions: &[Arc<Definition>]) -> impl Iterator<Item = &'static str> {
    let has_table =
        |name: &str| definitions.iter().any(|definition| definition.name == name && definition.table.name == name);
    VIEWS.into_iter().filter(move |view| needs(view).all(has_table))
}

/// The resources that a view names in its first line.
fn needs(view: &str) -> impl Iterator<Item = &str> {
    let named = view.lines().next().and_then(|line| line.split_once("Needs: "));
    named.map_or("", |(_, names)| names.trim_end_matches('.')).split(", ")
}

#[cfg(test)]
mod tests {
    use super::{VIEWS, needs, views};
    use crate::catalog::{RuleTable, resources, ships, source_defaults};

    #[test]
    fn each_view_file_is_included_and_names_the_resources_it_needs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/views");
        let files =
            std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let mut files: Vec<String> = files.collect();
        let mut known = VIEWS.map(str::to_owned).to_vec();
        files.sort();
        known.sort();
        assert!(files == known, "sql/views holds others");
        for view in VIEWS {
            assert!(needs(view).count() > 0 && needs(view).all(ships), "{view}");
        }
    }

    #[test]
    fn views_that_need_a_missing_resource_are_left_out() {
        let rules = RuleTable::build([&source_defaults().unwrap().limits]).unwrap();
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            views(&resources(&names, &toml::Table::new(), &rules).unwrap()).count()
        };
        let all = of(&["inventory", "orders", "returns", "shipments"]);
        assert_eq!((of(&["orders"]), of(&["shipments"]), of(&["inventory"]), all), (1, 5, 0, VIEWS.len()));
    }
}
