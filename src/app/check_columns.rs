//! `waybill check`, the columns: those that no document fills, of what was read for the other checks and what is stored.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Finding;
use super::single_call::Caller;
use crate::catalog::Definition;
use crate::catalog::column_fill::{ColumnFill, FillReport, Unfilled, UnfilledColumn};
use crate::catalog::coverage::WITHOUT_OFFSET_HINT;
use crate::config::Config;
use crate::domain::{ShopId, counted};
use crate::sink::{ListQuery, Mysql, SinkErrorClass};
use crate::store::StoreError;

/// Stored documents of each resource that are looked at.
const STORED_MAX: usize = 100;
/// Columns without a value that one line names.
const NAMED_MAX: usize = 5;

/// Documents by resource, looked at and dropped.
#[derive(Default)]
pub(super) struct Samples(BTreeMap<String, Sample>);

struct Sample {
    fill: ColumnFill,
    /// A document that was read is often stored too.
    seen: BTreeSet<(ShopId, String)>,
}

impl Samples {
    /// Looks at a document.
    pub(super) fn add(&mut self, definition: &Definition, shop: &ShopId, id: &str, document: &[u8]) {
        let new = || Sample { fill: ColumnFill::new(definition), seen: BTreeSet::new() };
        let sample = self.0.entry(definition.name.clone()).or_insert_with(new);
        if sample.seen.insert((shop.clone(), id.to_owned())) {
            sample.fill.add(document);
        }
    }

    /// Looks at stored documents too; `mysql` if it is reachable. What cannot be read is reported by other checks.
    pub(super) async fn add_stored(&mut self, caller: &Caller<'_>, mysql: Option<&Mysql>) {
        for definition in &caller.config.definitions {
            match mysql {
                Some(mysql) => match mysql.list(&definition.name, &first_page()).await {
                    Ok(page) => {
                        page.items
                            .iter()
                            .for_each(|item| self.add(definition, &item.shop_id, &item.id, &item.document));
                    }
                    // A table may not exist yet.
                    Err(error) if matches!(error.class, SinkErrorClass::Operator | SinkErrorClass::Unknown) => {}
                    Err(_) => return,
                },
                None if caller.config.mysql_url.is_some() => return,
                None => drop(self.add_archived(caller, definition)),
            }
        }
    }

    fn add_archived(&mut self, caller: &Caller<'_>, definition: &Definition) -> Result<(), StoreError> {
        let page = caller.store.archived(&definition.name, None, None, STORED_MAX)?;
        page.documents.iter().for_each(|one| self.add(definition, &one.shop_id, &one.id, &one.body));
        Ok(())
    }

    /// What was found, resource by resource.
    pub(super) fn findings(&self, config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        for definition in &config.definitions {
            let Some(report) = self.0.get(&definition.name).map(|sample| sample.fill.report()) else { continue };
            let resource = &definition.name;
            if report.columns > 0 {
                findings.push(Finding::ok(format!("resource {resource}: columns"), summary(&report)));
            }
            findings.extend(report.unfilled.into_iter().map(|column| finding(config, resource, column)));
        }
        findings
    }
}

fn first_page() -> ListQuery {
    ListQuery { limit: STORED_MAX, ..ListQuery::default() }
}

fn summary(FillReport { documents, columns, filled, unseen, .. }: &FillReport) -> String {
    let found = format!("{filled} of {columns} had a value in {}", counted(*documents, "document", "documents"));
    if unseen.is_empty() {
        return found;
    }
    let named: Vec<String> =
        unseen.iter().take(NAMED_MAX).map(|(name, pointer)| format!("{name} ({pointer})")).collect();
    let more = unseen.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{found}; no document has {}{more}, which is too few documents to call them wrong", named.join(", "))
}

fn finding(config: &Config, resource: &str, column: UnfilledColumn) -> Finding {
    let UnfilledColumn { key, name, pointer, why } = column;
    let key = format!("resource.{resource}.{key}");
    let place = config.place(&key);
    let (subject, always) = match &why {
        Unfilled::Misfit { column: None, .. } => (format!("resource {resource}: child table {name}"), "empty"),
        _ if name.contains('.') => (format!("resource {resource}: column {name}"), "NULL"),
        _ => (format!("resource {resource}: child table {name}"), "empty"),
    };
    match why {
        Unfilled::Absent { documents, near, others } => {
            let what =
                format!("is always {always}: none of {} has {pointer}", counted(documents, "document", "documents"));
            Finding::warn(subject, format!("{what} ({place}); {}", absent_remedy(near, &others)))
        }
        Unfilled::Misfit { documents, column, kinds, fitting } => {
            let needed = column.map_or_else(|| "an array".to_owned(), |kind| kind.to_string());
            let what = format!(
                "is always {always}: {} a value at {pointer}, and none fits {needed}; their type is {}",
                counted(documents, "document has", "documents have"),
                kinds.join(" or ")
            );
            let remedy = misfit_remedy(&needed, fitting.as_deref(), column.is_some());
            Finding::fail(subject, format!("{what} ({place}); {remedy}"))
        }
        Unfilled::WithoutOffset => Finding::fail(
            subject,
            format!("{name} would be NULL: {WITHOUT_OFFSET_HINT}, in the column ({place}) or in [resource.{resource}]"),
        ),
    }
}

fn absent_remedy(near: Option<String>, others: &[String]) -> String {
    if let Some(near) = near {
        return format!("did you mean `{near}`?");
    }
    let others = match others {
        [] => String::new(),
        others => format!("; keys there without a column: {}", others.join(", ")),
    };
    format!("correct its pointer, or leave it if the API may omit the field{others}")
}

fn misfit_remedy(needed: &str, fitting: Option<&str>, is_column: bool) -> String {
    match fitting {
        _ if !is_column => "point `from` at the array".to_owned(),
        Some(kind) if kind != needed => format!("use type = \"{kind}\""),
        _ => "point into it, use type = \"json\", or make an array a child table".to_owned(),
    }
}
