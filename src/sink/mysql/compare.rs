//! Compares a definition's table with the one in the database: what a start creates, adds and widens, and what it
//! refuses.
//!
//! Reads only. Called by the start, which then makes the changes, and by `waybill check`, which reports them; so both
//! say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::catalog::Definition;
use crate::sink::SinkError;

use super::execute::soon;
use super::layout::{Layout, SqlColumn, SqlTable};
use super::types::{Fit, fit};

/// A change that the next start makes to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    pub table: String,
    /// What will be done, in words; None: the whole table is created.
    pub what: Option<String>,
    /// The same in SQL.
    pub statements: Vec<String>,
    /// Whether it adds columns that `waybill schema replay` can fill.
    pub is_fillable: bool,
}

impl PlannedChange {
    /// A table of our own is created.
    pub(super) fn creation(table: &str) -> PlannedChange {
        PlannedChange { table: table.to_owned(), what: None, statements: Vec::new(), is_fillable: false }
    }
}

/// How a table differs from its definition.
pub(super) struct Difference<'a> {
    table: &'a SqlTable,
    /// The columns that are there; empty if there is no such table.
    pub found: BTreeMap<String, FoundColumn>,
    /// The names of the indexes that are there.
    pub indexes: BTreeSet<String>,
    /// Columns to add.
    pub lacking: Vec<&'a SqlColumn>,
    /// Columns to widen.
    pub narrow: Vec<&'a SqlColumn>,
    /// Columns to index.
    pub unindexed: Vec<&'a String>,
    /// Why a start refuses the table, and the remedy.
    pub refused: Option<String>,
}

/// An existing column.
pub(super) struct FoundColumn {
    /// Its type as the server reports it.
    pub kind: String,
    /// The server accepts only JSON.
    pub is_json: bool,
}

impl Difference<'_> {
    pub(super) fn is_missing(&self) -> bool {
        self.found.is_empty()
    }

    /// What the next start changes, unless it refuses the table.
    pub(super) fn planned(&self) -> Option<PlannedChange> {
        let table = self.table;
        let of = |what, statements, is_fillable| {
            Some(PlannedChange { table: table.name.clone(), what, statements, is_fillable })
        };
        if self.refused.is_some() {
            return None;
        }
        if self.is_missing() {
            return of(None, vec![table.create()], false);
        }
        let mut statements: Vec<String> = self.lacking.iter().map(|column| table.add_column(column, false)).collect();
        for column in &self.narrow {
            let there = self.found.get(&column.name);
            let has_index = there.is_some_and(|there| has_whole_index(&self.indexes, column, there));
            statements.push(table.change_column(column, false, has_index));
        }
        statements.extend(self.unindexed.iter().map(|index| table.add_index(index, &table.key_part(index))));
        let quoted = |name: &str| format!("`{name}`");
        let added: Vec<String> = self.lacking.iter().map(|column| quoted(&column.name)).collect();
        let widened = self.narrow.iter().map(|column| {
            let there = self.found.get(&column.name).map_or("", |there| there.kind.as_str());
            format!("{} ({there} to {})", quoted(&column.name), type_of(column))
        });
        let indexed: Vec<String> = self.unindexed.iter().map(|index| quoted(&format!("by_{index}"))).collect();
        let parts = [
            phrase(&added, ["column", "columns"], "added"),
            phrase(&widened.collect::<Vec<_>>(), ["column", "columns"], "widened"),
            phrase(&indexed, ["index", "indexes"], "added"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let is_fillable = !self.lacking.is_empty();
        if parts.is_empty() { None } else { of(Some(parts.join(", ")), statements, is_fillable) }
    }

    /// Whether a start changes this column first.
    fn changes(&self, name: &str) -> bool {
        self.lacking.iter().chain(&self.narrow).any(|column| column.name == name)
    }
}

/// Like "column `a` will be added"; None for no names.
fn phrase(names: &[String], [one, many]: [&str; 2], done: &str) -> Option<String> {
    let noun = if names.len() == 1 { one } else { many };
    (!names.is_empty()).then(|| format!("{noun} {} will be {done}", names.join(", ")))
}

/// A layout without what a start has yet to add: what the writer can do now. None if one of our own columns, or the
/// table itself, is missing, or a table is refused.
pub(super) fn layout_now(layout: &Layout, differences: &[Difference<'_>]) -> Option<Layout> {
    let (parent, children) = differences.split_first()?;
    if parent.is_missing() || differences.iter().any(|difference| difference.refused.is_some()) {
        return None;
    }
    let mut definition = Definition::clone(&layout.definition);
    let table = &mut definition.table;
    table.columns.retain(|column| !parent.changes(&column.name));
    table.indexes.clear();
    let is_there = |name: &str| children.iter().any(|child| child.table.name == name && !child.is_missing());
    table.children.retain(|child| is_there(&child.name));
    for child in &mut table.children {
        let difference = children.iter().find(|difference| difference.table.name == child.name)?;
        child.columns.retain(|column| !difference.changes(&column.name));
        child.indexes.clear();
    }
    let trimmed = Layout::new(Arc::new(definition)).ok()?;
    // Columns that every table has are not in the definition.
    let is_known = |table: &SqlTable| {
        let difference = differences.iter().find(|difference| difference.table.name == table.name);
        difference.is_some_and(|difference| !table.columns.iter().any(|column| difference.changes(&column.name)))
    };
    let is_whole = trimmed.tables().all(is_known);
    is_whole.then_some(trimmed)
}

/// Compares one table.
///
/// # Errors
/// The server's.
pub(super) async fn compare<'a>(conn: &mut Conn, table: &'a SqlTable) -> Result<Difference<'a>, SinkError> {
    let found = columns_of(conn, &table.name).await?;
    let mut difference = Difference {
        table,
        found,
        indexes: BTreeSet::new(),
        lacking: Vec::new(),
        narrow: Vec::new(),
        unindexed: Vec::new(),
        refused: None,
    };
    if difference.is_missing() {
        return Ok(difference);
    }
    if let Some(missing) = table.key().iter().find(|name| !difference.found.contains_key(*name)) {
        difference.refused = Some(not_ours(conn, table, missing, &difference.found).await?);
        return Ok(difference);
    }
    difference.indexes = indexes_of(conn, &table.name).await?;
    let mut refused = Vec::new();
    for column in &table.columns {
        match difference.found.get(&column.name) {
            None => difference.lacking.push(column),
            Some(there) => match fit(&there.kind, there.is_json, &column.kind) {
                Fit::Fine => {}
                Fit::Widen => difference.narrow.push(column),
                Fit::No => {
                    let has_index = has_whole_index(&difference.indexes, column, there);
                    refused.push(refusal(table, column, there, has_index));
                }
            },
        }
    }
    if !refused.is_empty() {
        difference.refused = Some(format!("table `{}`: {}", table.name, refused.join("; ")));
    }
    let has_index = |index: &&String| difference.indexes.contains(&format!("by_{index}"));
    difference.unindexed = table.indexes.iter().filter(|index| !has_index(index)).collect();
    Ok(difference)
}

/// Whether the column has an index of ours that covers the whole of it.
pub(super) fn has_whole_index(indexes: &BTreeSet<String>, column: &SqlColumn, there: &FoundColumn) -> bool {
    indexes.contains(&format!("by_{}", column.name)) && !SqlTable::is_long(&there.kind)
}

/// Why a column is left alone, and the remedy.
fn refusal(table: &SqlTable, column: &SqlColumn, there: &FoundColumn, has_whole_index: bool) -> String {
    let (name, is) = (&column.name, if there.is_json { "json" } else { there.kind.as_str() });
    let asked = type_of(column);
    let statement = table.change_column(column, false, has_whole_index);
    format!(
        "column `{name}` is {is} and the definition asks for {asked}, which could lose values; change the definition \
         back, give the column another name, or run {statement}"
    )
}

/// Explains a table that lacks a key column. If the table is ours, names the column it has instead.
async fn not_ours(
    conn: &mut Conn,
    table: &SqlTable,
    missing: &str,
    found: &BTreeMap<String, FoundColumn>,
) -> Result<String, SinkError> {
    let text = "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND \
                TABLE_NAME = ? AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX";
    let key: Vec<String> = soon(conn.exec(text, (&table.name,))).await?;
    let has = |names: &[&str]| names.iter().all(|name| found.contains_key(*name));
    let is_ours = has(&["shop_id", "version"]) && (has(&["document", "row_hash"]) || has(&["position"]));
    let table = &table.name;
    Ok(match key.get(1).filter(|_| is_ours && missing != "shop_id" && missing != "position") {
        Some(old) => format!(
            "table `{table}` is Waybill's, but the column of its id is called `{old}` there and `{missing}` in the \
             definition; change the definition back, or run ALTER TABLE `{table}` RENAME COLUMN `{old}` TO `{missing}`"
        ),
        None => format!(
            "table `{table}` exists but is not Waybill's: it has no column `{missing}`; rename it, or give the \
             resource another table name"
        ),
    })
}

/// The type that the definition asks for, as a person names it.
fn type_of(column: &SqlColumn) -> String {
    column.kind.split(' ').next().unwrap_or_default().to_lowercase()
}

/// The columns of a table by name; empty if there is no such table.
pub(super) async fn columns_of(conn: &mut Conn, table: &str) -> Result<BTreeMap<String, FoundColumn>, SinkError> {
    let text = "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS \
                WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    let rows: Vec<(String, String)> = soon(conn.exec(text, (table,))).await?;
    let kind = |kind: String| FoundColumn { kind: kind.to_lowercase(), is_json: false };
    let mut found: BTreeMap<_, _> = rows.into_iter().map(|(name, text)| (name.to_lowercase(), kind(text))).collect();
    if found.values().any(|there| there.kind == "longtext") {
        for name in json_columns(conn, table).await? {
            found.entry(name).and_modify(|there| there.is_json = true);
        }
    }
    Ok(found)
}

/// Columns that MariaDB stores as LONGTEXT but accepts only JSON for.
async fn json_columns(conn: &mut Conn, table: &str) -> Result<Vec<String>, SinkError> {
    let version: Option<String> = soon(conn.query_first("SELECT VERSION()")).await?;
    if !version.is_some_and(|version| version.contains("MariaDB")) {
        return Ok(Vec::new());
    }
    let text = "SELECT LOWER(CONSTRAINT_NAME) FROM information_schema.CHECK_CONSTRAINTS WHERE \
                CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ? AND CHECK_CLAUSE LIKE 'json_valid(%'";
    soon(conn.exec(text, (table,))).await
}

async fn indexes_of(conn: &mut Conn, table: &str) -> Result<BTreeSet<String>, SinkError> {
    let text = "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS \
                WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    let rows: Vec<String> = soon(conn.exec(text, (table,))).await?;
    Ok(rows.into_iter().map(|name| name.to_lowercase()).collect())
}
