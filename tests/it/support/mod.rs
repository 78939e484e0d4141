//! What several tests need. `mariadb` and `program` serve the rig (`tests/rig`) too.

pub(crate) mod app;
pub(crate) mod app_api;
pub(crate) mod configuration;
pub(crate) mod data_files;
pub(crate) mod first_form;
#[allow(dead_code, reason = "the rig uses the rest")]
pub(crate) mod mariadb;
pub(crate) mod oracle;
#[allow(dead_code, reason = "the rig uses the rest")]
pub(crate) mod program;
pub(crate) mod terminal;

use std::collections::BTreeMap;

/// The resources of the catalog.
pub(crate) const CATALOG: [&str; 10] = [
    "shipments",
    "orders",
    "returns",
    "replenishments",
    "inventory",
    "invoices",
    "invoice_requests",
    "promotions",
    "promotion_products",
    "offers",
];

/// The rate rules of the catalog, all of them lifted.
pub(crate) fn no_limits() -> BTreeMap<String, String> {
    let rules = waybill::catalog::source_defaults().unwrap().limits.into_keys();
    rules.map(|rule| (rule, "none".to_owned())).collect()
}

/// Whether tests shall run in their long form: `WAYBILL_TEST_FULL=1`.
pub(crate) fn is_full() -> bool {
    std::env::var("WAYBILL_TEST_FULL").is_ok_and(|full| full == "1")
}
