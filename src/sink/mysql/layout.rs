//! Translates a definition to SQL: column types, CREATE TABLE and the write statements.
//!
//! Pure; all texts are built once. Identifiers come from checked definitions only (a-z, 0-9 and _), and values are
//! never part of a text, so no input can inject SQL. Called by the schema, the writer and the listing.
//!
//! Collations: ids and codes (`text(n)`) compare by bytes, so that `a` and `A` are two ids; free text (`text`)
//! compares case-insensitively, because people search in it.

use std::sync::Arc;

use crate::catalog::Definition;
use crate::catalog::definition::{Column, ColumnKind};
use crate::domain::ListParams;

use super::statements::{self, Sized, sizes};
use super::types::is_long_text;

/// Maximum characters of shop ids and document ids; both are part of the primary key (3,072 bytes at most).
pub(super) const SHOP_CHARS_MAX: usize = 64;
pub(super) const ID_CHARS_MAX: usize = 128;

/// Share of a row's 65,535 bytes for a definition's own columns; the rest is ours.
const ROW_BYTES_MAX: usize = 60_000;
/// Their share of the 8,126 bytes that InnoDB keeps of a row in a 16 KiB page.
const PAGE_BYTES_MAX: usize = 7_000;
/// Bytes that a column leaves in the page when InnoDB moves it out.
const MOVED_BYTES: usize = 42;
/// InnoDB cannot move shorter columns (up to 255 bytes) out of the page.
const MOVABLE_CHARS_MIN: usize = 64;
/// Indexed prefix of long texts, in characters: selective enough, and small.
const INDEX_CHARS: usize = 191;

const BYTES: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
const PEOPLE: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci";

/// The SQL of one definition.
pub(super) struct Layout {
    pub definition: Arc<Definition>,
    pub parent: SqlTable,
    pub children: Vec<SqlTable>,
    /// Locks the rows of documents and reads their versions; parameters (shop, id) for each.
    pub versions: Vec<Sized>,
    /// Per child table: counts the rows of documents; parameters (shop, id) for each.
    pub child_counts: Vec<Vec<Sized>>,
    /// Sets the definition's own columns of existing rows: (shop, id, columns). None if it has no columns.
    pub refills: Vec<Sized>,
    /// Per child table: deletes the rows from a position on: (shop, id, position).
    pub surpluses: Vec<Vec<Sized>>,
    /// Sets `no_longer_listed_at`: (time, shop, id, version).
    pub listing: String,
}

/// One table.
pub(super) struct SqlTable {
    pub name: String,
    pub columns: Vec<SqlColumn>,
    key: Vec<String>,
    /// Columns that have an index of their own.
    pub indexes: Vec<String>,
    /// Placeholders per row.
    pub width: usize,
    /// Inserts new rows, largest statement first; the last inserts one row. An existing row is an error, never
    /// overwritten.
    pub inserts: Vec<Sized>,
    /// The same rows in the same order, as upserts.
    pub upserts: Vec<Sized>,
}

/// A column and its type as written in CREATE TABLE.
pub(super) struct SqlColumn {
    pub name: String,
    pub kind: String,
    on_repeat: OnRepeat,
}

/// What an upsert does to a column of an existing row.
#[derive(Clone, Copy, PartialEq)]
enum OnRepeat {
    /// Part of the key.
    Key,
    /// Overwritten. The caller holds the lock of the document and knows that its version is not older.
    Always,
    /// Overwritten unless the existing row is newer.
    Newest,
    /// Keeps the smaller value, whatever the version.
    Least,
    /// Not written; cleared by a newer document. Repeating the same document does not clear it, which would undo a
    /// later note.
    Cleared,
}

impl Layout {
    /// # Errors
    /// Why the definition does not fit a table.
    pub(super) fn new(definition: Arc<Definition>) -> Result<Layout, String> {
        let table = &definition.table;
        let id = &table.id_column;
        let parent = parent(&definition)?;
        let mut children = Vec::with_capacity(table.children.len());
        for child in &table.children {
            let mut columns = key_columns(id);
            columns.push(SqlColumn::new("position", "INT UNSIGNED NOT NULL", OnRepeat::Key));
            columns.extend(own_columns(&child.name, &child.columns, OnRepeat::Always)?);
            columns.push(version_column(OnRepeat::Always));
            let key = vec!["shop_id".to_owned(), id.clone(), "position".to_owned()];
            children.push(SqlTable::new(&child.name, columns, key, &child.indexes)?);
        }
        let versions = statements::versions(&parent.name, id);
        let child_counts = children.iter().map(|child| statements::child_counts(&child.name, id)).collect();
        let surpluses = children.iter().map(|child| statements::surpluses(&child.name, id)).collect();
        let refills = statements::refills(table);
        let listing = format!(
            "UPDATE `{}` SET `no_longer_listed_at` = ? WHERE `shop_id` = ? AND `{id}` = ? AND `version` <= ?",
            parent.name
        );
        Ok(Layout { definition, parent, children, versions, child_counts, refills, surpluses, listing })
    }

    /// The parent and its children.
    pub(super) fn tables(&self) -> impl Iterator<Item = &SqlTable> {
        std::iter::once(&self.parent).chain(&self.children)
    }
}

fn parent(definition: &Definition) -> Result<SqlTable, String> {
    let table = &definition.table;
    let mut columns = key_columns(&table.id_column);
    let combination = format!("VARCHAR({}) {BYTES} NOT NULL DEFAULT ''", ListParams::CHARS_MAX);
    columns.push(SqlColumn::new("combination", &combination, OnRepeat::Newest));
    columns.extend(own_columns(&table.name, &table.columns, OnRepeat::Newest)?);
    columns.push(SqlColumn::new("document", "JSON NOT NULL", OnRepeat::Newest));
    columns.push(SqlColumn::new("fetched_at", "DATETIME(6) NOT NULL", OnRepeat::Newest));
    columns.push(SqlColumn::new("first_listed_at", "DATETIME(6) NOT NULL", OnRepeat::Least));
    columns.push(SqlColumn::new("no_longer_listed_at", "DATETIME(6) NULL", OnRepeat::Cleared));
    columns.push(SqlColumn::new("row_hash", "BIGINT UNSIGNED NOT NULL DEFAULT 0", OnRepeat::Newest));
    columns.push(SqlColumn::new("document_hash", "BIGINT UNSIGNED NOT NULL DEFAULT 0", OnRepeat::Newest));
    columns.push(version_column(OnRepeat::Newest));
    let key = vec!["shop_id".to_owned(), table.id_column.clone()];
    SqlTable::new(&table.name, columns, key, &table.indexes)
}

fn key_columns(id: &str) -> Vec<SqlColumn> {
    vec![
        SqlColumn::new("shop_id", &format!("VARCHAR({SHOP_CHARS_MAX}) {BYTES} NOT NULL"), OnRepeat::Key),
        SqlColumn::new(id, &format!("VARCHAR({ID_CHARS_MAX}) {BYTES} NOT NULL"), OnRepeat::Key),
    ]
}

/// Always the last column: the assignments of an upsert run left to right, and the others compare with the old
/// version.
fn version_column(on_repeat: OnRepeat) -> SqlColumn {
    SqlColumn::new("version", "BIGINT UNSIGNED NOT NULL", on_repeat)
}

/// Tables of a definition that cannot fit a MySQL row: the dotted key, and what is wrong.
pub(super) fn unfit(definition: &Definition) -> Vec<(String, String)> {
    let (name, table) = (&definition.name, &definition.table);
    let own = (format!("resource.{name}.table"), &table.columns);
    let children = table.children.iter();
    let children = children.map(|child| (format!("resource.{name}.table.children.{}", child.name), &child.columns));
    let problem = |(key, columns): (String, &Vec<Column>)| Some((key, fitting_kinds(columns).err()?));
    std::iter::once(own).chain(children).filter_map(problem).collect()
}

fn own_columns(table: &str, columns: &[Column], on_repeat: OnRepeat) -> Result<Vec<SqlColumn>, String> {
    let kinds = fitting_kinds(columns).map_err(|what| format!("table `{table}`: {what}"))?;
    Ok(columns.iter().zip(kinds).map(|(column, kind)| SqlColumn::new(&column.name, &kind, on_repeat)).collect())
}

/// As [`sql_kinds`].
///
/// # Errors
/// The columns do not fit a row, with the remedy.
fn fitting_kinds(columns: &[Column]) -> Result<Vec<String>, String> {
    let unfit = || format!("its {} columns do not fit a row of MySQL; leave some out", columns.len());
    sql_kinds(columns).ok_or_else(unfit)
}

/// Chooses the SQL types of the columns, as a function of the list alone: texts that do not fit a page get longer
/// types (which InnoDB can move out of it), texts that do not fit a row become TEXT, the longest first. None if they
/// do not fit at all.
fn sql_kinds(columns: &[Column]) -> Option<Vec<String>> {
    // Some(n) means VARCHAR(n).
    let mut lengths: Vec<Option<usize>> = columns
        .iter()
        .map(|column| match column.kind {
            ColumnKind::Text(length) => length.map(usize::from),
            ColumnKind::Datetime
            | ColumnKind::Date
            | ColumnKind::Integer
            | ColumnKind::Decimal { .. }
            | ColumnKind::Boolean
            | ColumnKind::Json => None,
        })
        .collect();
    let page = |lengths: &[Option<usize>]| -> usize {
        columns.iter().zip(lengths).map(|(column, length)| page_bytes(column.kind, *length)).sum()
    };
    if page(&lengths) > PAGE_BYTES_MAX {
        for length in lengths.iter_mut().flatten().filter(|length| **length * 4 > MOVED_BYTES) {
            *length = (*length).max(MOVABLE_CHARS_MIN);
        }
        if page(&lengths) > PAGE_BYTES_MAX {
            return None;
        }
    }
    loop {
        let row: usize = lengths.iter().map(|length| length.map_or(14, |chars| chars * 4 + 2)).sum();
        if row <= ROW_BYTES_MAX {
            break;
        }
        let widest = lengths.iter_mut().max_by_key(|length| length.unwrap_or(0))?;
        *widest = None;
    }
    Some(columns.iter().zip(lengths).map(|(column, length)| sql_kind(column.kind, length)).collect())
}

fn sql_kind(kind: ColumnKind, length: Option<usize>) -> String {
    match (kind, length) {
        (ColumnKind::Text(_), Some(length)) => format!("VARCHAR({length}) {BYTES} NULL"),
        (ColumnKind::Text(Some(_)), None) => format!("TEXT {BYTES} NULL"),
        (ColumnKind::Text(None), None) => format!("TEXT {PEOPLE} NULL"),
        (ColumnKind::Datetime, _) => "DATETIME(6) NULL".to_owned(),
        (ColumnKind::Date, _) => "DATE NULL".to_owned(),
        (ColumnKind::Integer, _) => "BIGINT NULL".to_owned(),
        (ColumnKind::Decimal { digits, scale }, _) => format!("DECIMAL({digits},{scale}) NULL"),
        (ColumnKind::Boolean, _) => "BOOLEAN NULL".to_owned(),
        (ColumnKind::Json, _) => "JSON NULL".to_owned(),
    }
}

/// Worst-case bytes of a column within its page.
fn page_bytes(kind: ColumnKind, length: Option<usize>) -> usize {
    match (kind, length) {
        (ColumnKind::Text(_), Some(length)) if length < MOVABLE_CHARS_MIN => length * 4 + 1,
        (ColumnKind::Text(_) | ColumnKind::Json, _) => MOVED_BYTES,
        (ColumnKind::Decimal { .. }, _) => 30,
        _ => 8,
    }
}

impl SqlColumn {
    fn new(name: &str, kind: &str, on_repeat: OnRepeat) -> SqlColumn {
        SqlColumn { name: name.to_owned(), kind: kind.to_owned(), on_repeat }
    }

    fn assignment(&self) -> Option<String> {
        let name = &self.name;
        match self.on_repeat {
            OnRepeat::Key => None,
            OnRepeat::Always => Some(format!("`{name}` = VALUES(`{name}`)")),
            _ if name == "version" => Some("`version` = GREATEST(`version`, VALUES(`version`))".to_owned()),
            OnRepeat::Newest => {
                Some(format!("`{name}` = IF(VALUES(`version`) >= `version`, VALUES(`{name}`), `{name}`)"))
            }
            OnRepeat::Least => Some(format!("`{name}` = LEAST(`{name}`, VALUES(`{name}`))")),
            OnRepeat::Cleared => Some(format!("`{name}` = IF(VALUES(`version`) > `version`, NULL, `{name}`)")),
        }
    }
}

impl SqlTable {
    fn new(name: &str, columns: Vec<SqlColumn>, key: Vec<String>, indexes: &[String]) -> Result<SqlTable, String> {
        let width = columns.iter().filter(|column| column.on_repeat != OnRepeat::Cleared).count();
        let mut table = SqlTable {
            name: name.to_owned(),
            columns,
            key,
            indexes: indexes.to_vec(),
            width,
            inserts: Vec::new(),
            upserts: Vec::new(),
        };
        table.inserts = sizes(width).map(|rows| Sized { rows, text: table.insert(rows) }).collect();
        table.upserts = sizes(width).map(|rows| Sized { rows, text: table.upsert(rows) }).collect();
        Ok(table)
    }

    fn insert(&self, rows: usize) -> String {
        let written: Vec<String> = self
            .columns
            .iter()
            .filter(|column| column.on_repeat != OnRepeat::Cleared)
            .map(|column| format!("`{}`", column.name))
            .collect();
        let row = format!("({})", vec!["?"; written.len()].join(","));
        format!("INSERT INTO `{}` ({}) VALUES {}", self.name, written.join(","), vec![row.as_str(); rows].join(","))
    }

    fn upsert(&self, rows: usize) -> String {
        let assignments: Vec<String> = self.columns.iter().filter_map(SqlColumn::assignment).collect();
        format!("{} ON DUPLICATE KEY UPDATE {}", self.insert(rows), assignments.join(", "))
    }

    /// CREATE TABLE with all columns and indexes.
    pub(super) fn create(&self) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|column| format!("`{}` {}", column.name, column.kind)).collect();
        let key: Vec<String> = self.key.iter().map(|name| format!("`{name}`")).collect();
        lines.push(format!("PRIMARY KEY ({})", key.join(",")));
        lines.extend(self.indexes.iter().map(|index| format!("KEY `by_{index}` ({})", self.key_part(index))));
        format!(
            "CREATE TABLE IF NOT EXISTS `{}` (\n  {}\n) ENGINE = InnoDB ROW_FORMAT = DYNAMIC \
             DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            self.name,
            lines.join(",\n  ")
        )
    }

    /// ALTER TABLE that adds a column. `wide`: as TEXT, for a table whose rows are full.
    pub(super) fn add_column(&self, column: &SqlColumn, wide: bool) -> String {
        let kind = if wide { format!("TEXT {BYTES} NULL") } else { column.kind.clone() };
        format!("ALTER TABLE `{}` ADD COLUMN `{}` {kind}", self.name, column.name)
    }

    /// ALTER TABLE that changes a column's type. `wide`: as TEXT, for a table whose rows are full. `has_whole_index`:
    /// its index covers the whole column, which the new type does not allow.
    pub(super) fn change_column(&self, column: &SqlColumn, wide: bool, has_whole_index: bool) -> String {
        let name = &column.name;
        let kind = if wide { format!("TEXT {BYTES} NULL") } else { column.kind.clone() };
        let part = if wide { key_part(name, true) } else { self.key_part(name) };
        let index = if has_whole_index && part.contains('(') {
            format!(", DROP KEY `by_{name}`, ADD KEY `by_{name}` ({part})")
        } else {
            String::new()
        };
        format!("ALTER TABLE `{}` MODIFY COLUMN `{name}` {kind}{index}", self.name)
    }

    /// ALTER TABLE that adds an index.
    pub(super) fn add_index(&self, index: &str, part: &str) -> String {
        format!("ALTER TABLE `{}` ADD KEY `by_{index}` ({part})", self.name)
    }

    /// The indexed part of a column, by our type of it.
    pub(super) fn key_part(&self, index: &str) -> String {
        let kind = self.columns.iter().find(|column| column.name == index).map_or("", |column| column.kind.as_str());
        key_part(index, SqlTable::is_long(kind))
    }

    /// Whether an index covers only a prefix of a column of this type.
    pub(super) fn is_long(kind: &str) -> bool {
        is_long_text(kind) || varchar_chars(kind) > INDEX_CHARS
    }

    /// The columns of the primary key.
    pub(super) fn key(&self) -> &[String] {
        &self.key
    }
}

/// The indexed part of a column: the whole, or a prefix of long texts.
pub(super) fn key_part(column: &str, is_long: bool) -> String {
    if is_long { format!("`{column}`({INDEX_CHARS})") } else { format!("`{column}`") }
}

/// The length of a VARCHAR; 0 for other types.
pub(super) fn varchar_chars(kind: &str) -> usize {
    let behind = kind.strip_prefix("VARCHAR(").or_else(|| kind.strip_prefix("varchar("));
    behind.and_then(|rest| rest.split(')').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::statements::PLACEHOLDERS_MAX;
    use super::{Layout, sql_kinds};
    use crate::catalog::definition::{Column, ColumnKind, ColumnSource};
    use crate::catalog::{self, RuleTable};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn column(name: String, kind: ColumnKind) -> Column {
        Column { name, source: ColumnSource::Pointer("/x".into()), kind, zone: None }
    }

    fn layout(own: &str) -> Result<Layout, String> {
        let paths = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
        let rules: BTreeMap<String, String> = paths.iter().map(|path| (path.to_string(), "1/s".to_string())).collect();
        let rules = RuleTable::build([&rules]).unwrap();
        let own: toml::Table = toml::from_str(own).unwrap();
        let definitions =
            catalog::resources(&["shipments".to_owned()], &own, &rules).map_err(|found| found.to_string())?;
        Layout::new(Arc::clone(&definitions[0]))
    }

    #[test]
    fn statements_compare_with_the_old_version_and_stay_small() {
        let layout = layout("").unwrap();
        for upsert in &layout.parent.upserts {
            assert!(upsert.text.ends_with("`version` = GREATEST(`version`, VALUES(`version`))"));
        }
        for table in layout.tables() {
            for upsert in table.upserts.iter().chain(&table.inserts) {
                assert_eq!(upsert.text.matches('?').count(), upsert.rows * table.width);
                assert!(upsert.rows == 1 || upsert.rows * table.width <= PLACEHOLDERS_MAX);
            }
            assert_eq!(table.upserts.last().unwrap().rows, 1);
        }
    }

    #[test]
    fn short_rows_keep_their_types_and_long_rows_become_text_widest_first() {
        let text = |n: u16, length: u16| column(format!("c{n}"), ColumnKind::Text(Some(length)));
        let short = sql_kinds(&[text(1, 8), column("d".into(), ColumnKind::Text(None))]).unwrap();
        assert!(short[0].starts_with("VARCHAR(8) ") && short[0].contains("utf8mb4_bin"), "{short:?}");
        assert!(short[1].starts_with("TEXT ") && short[1].contains("utf8mb4_unicode_ci"), "{short:?}");
        let wide: Vec<Column> = (0..22).map(|n| text(n, 700 + n)).collect();
        let kinds = sql_kinds(&wide).unwrap();
        assert!(kinds[0].starts_with("VARCHAR(700)"), "{kinds:?}");
        assert!(kinds[21].starts_with("TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"), "{kinds:?}");
        let many: Vec<Column> = (0..150).map(|n| text(n, 40)).collect();
        assert!(sql_kinds(&many).unwrap().iter().all(|kind| kind.starts_with("VARCHAR(64)")));
        let too_many: Vec<Column> = (0..400).map(|n| text(n, 40)).collect();
        assert_eq!(sql_kinds(&too_many), None);
    }
}
