//! From a definition to SQL: the types of its columns, its CREATE TABLE and its write statements.
//!
//! Pure; all texts are made once. Identifiers come from checked definitions only (a-z, 0-9 and _),
//! and values never stand in a text: P18. Called by the schema, the writer and the listing.
//!
//! Collations: ids and codes (`text(n)`) compare by bytes, so that `a` and `A` stay two ids; free
//! text (`text`) compares like people do, because people search in it.

use std::sync::Arc;

use crate::catalog::Definition;
use crate::catalog::definition::{Column, ColumnKind};
use crate::domain::Combination;

use super::statements::{self, Sized, sizes};
use super::types::is_long_text;

/// Characters of shop ids and document ids; both stand in the primary key (3,072 bytes at most).
pub(super) const SHOP_CHARS_MAX: usize = 64;
pub(super) const ID_CHARS_MAX: usize = 128;

/// What a definition's own columns may take of a row's 65,535 bytes, the rest being ours.
const ROW_BYTES_MAX: usize = 60_000;
/// What they may take of the 8,126 bytes that InnoDB keeps of a row in a 16 KiB page.
const PAGE_BYTES_MAX: usize = 7_000;
/// Columns that InnoDB can move out of the page leave this much behind.
const MOVED_BYTES: usize = 42;
/// Shorter ones (255 bytes) cannot be moved out.
const MOVABLE_CHARS_MIN: usize = 64;
/// Indexes on text take so many characters; enough to be selective, little to keep.
const INDEX_CHARS: usize = 191;

const BYTES: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
const PEOPLE: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci";

/// A definition as SQL.
pub(super) struct Layout {
    pub definition: Arc<Definition>,
    pub parent: SqlTable,
    pub children: Vec<SqlTable>,
    /// Locks the rows of documents and reads their versions: (shop, id) for each.
    pub versions: Vec<Sized>,
    /// Per child: counts the rows that documents have there: (shop, id) for each.
    pub child_counts: Vec<Vec<Sized>>,
    /// Sets the definition's own columns of rows that are there: (shop, id, columns). None where it has none.
    pub refills: Vec<Sized>,
    /// Per child: statements that delete the rows from a position on: (shop, id, position).
    pub surpluses: Vec<Vec<Sized>>,
    /// Sets `no_longer_listed_at`: (time, shop, id, version).
    pub listing: String,
}

/// A table.
pub(super) struct SqlTable {
    pub name: String,
    pub columns: Vec<SqlColumn>,
    key: Vec<String>,
    /// Columns with an index of their own.
    pub indexes: Vec<String>,
    /// Placeholders of a row.
    pub width: usize,
    /// Adds rows that are not there, largest statement first; the last takes one row. A row that is there is an error,
    /// never overwritten.
    pub inserts: Vec<Sized>,
    /// The same rows in the same order, where they replace those of their primary key.
    pub upserts: Vec<Sized>,
}

/// A column with its type as it stands in CREATE TABLE.
pub(super) struct SqlColumn {
    pub name: String,
    pub kind: String,
    on_repeat: OnRepeat,
}

/// What an upsert does with a column of a row that is there already.
#[derive(Clone, Copy, PartialEq)]
enum OnRepeat {
    /// Part of the key.
    Key,
    /// Taken over. Whoever writes it holds the lock of the document, and knows that its version is not older.
    Always,
    /// Taken over unless the row that is there is newer.
    Newest,
    /// The smaller one stays, whatever the version.
    Least,
    /// Not written; a newer document clears it. A repeat of the same document does not, or it would
    /// undo the note that came after it.
    Cleared,
}

impl Layout {
    /// # Errors
    /// The text of what makes the definition unfit for a table.
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
    let combination = format!("VARCHAR({}) {BYTES} NOT NULL DEFAULT ''", Combination::CHARS_MAX);
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

/// Always the last column: an upsert's assignments run left to right, and the others compare with
/// the version that the row had.
fn version_column(on_repeat: OnRepeat) -> SqlColumn {
    SqlColumn::new("version", "BIGINT UNSIGNED NOT NULL", on_repeat)
}

/// The tables of a definition that no row fits into: the dotted key, and what is wrong.
pub(super) fn unfit(definition: &Definition) -> Vec<(String, String)> {
    let (name, table) = (&definition.name, &definition.table);
    let own = (format!("resource.{name}.table"), &table.columns);
    let children = table.children.iter();
    let children = children.map(|child| (format!("resource.{name}.table.children.{}", child.name), &child.columns));
    let told = |(key, columns): (String, &Vec<Column>)| Some((key, fitting_kinds(columns).err()?));
    std::iter::once(own).chain(children).filter_map(told).collect()
}

fn own_columns(table: &str, columns: &[Column], on_repeat: OnRepeat) -> Result<Vec<SqlColumn>, String> {
    let kinds = fitting_kinds(columns).map_err(|what| format!("table `{table}`: {what}"))?;
    Ok(columns.iter().zip(kinds).map(|(column, kind)| SqlColumn::new(&column.name, &kind, on_repeat)).collect())
}

/// As [`sql_kinds`].
///
/// # Errors
/// That they do not fit, and the mend.
fn fitting_kinds(columns: &[Column]) -> Result<Vec<String>, String> {
    let unfit = || format!("its {} columns do not fit a row of MySQL; leave some out", columns.len());
    sql_kinds(columns).ok_or_else(unfit)
}

/// The columns' SQL types. Depends on nothing but the list: texts that do not fit a page get longer
/// types (which can be moved out of it), texts that do not fit a row become TEXT, the longest first.
/// None: they do not fit in any way.
fn sql_kinds(columns: &[Column]) -> Option<Vec<String>> {
    // Some(n): VARCHAR(n).
    let mut lengths: Vec<Option<usize>> = columns
        .iter()
        .map(|column| match column.kind {
            ColumnKind::Text(length) => length.map(usize::from),
            _ => None,
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

/// What a column takes of its page at worst.
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

    /// CREATE TABLE with everything in it.
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

    /// Adds one column. `wide`: as TEXT, for a table whose rows are full.
    pub(super) fn add_column(&self, column: &SqlColumn, wide: bool) -> String {
        let kind = if wide { format!("TEXT {BYTES} NULL") } else { column.kind.clone() };
        format!("ALTER TABLE `{}` ADD COLUMN `{}` {kind}", self.name, column.name)
    }

    /// Gives a column its type. `wide`: as TEXT, for a table whose rows are full. `has_whole_index`: its index takes
    /// all of it, which it may not do any more.
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

    /// Adds one index.
    pub(super) fn add_index(&self, index: &str, part: &str) -> String {
        format!("ALTER TABLE `{}` ADD KEY `by_{index}` ({part})", self.name)
    }

    /// What an index takes of its column, by our type of it.
    pub(super) fn key_part(&self, index: &str) -> String {
        let kind = self.columns.iter().find(|column| column.name == index).map_or("", |column| column.kind.as_str());
        key_part(index, SqlTable::is_long(kind))
    }

    /// Whether an index takes only the beginning of a column of such a type.
    pub(super) fn is_long(kind: &str) -> bool {
        is_long_text(kind) || varchar_chars(kind) > INDEX_CHARS
    }

    /// The columns of the primary key.
    pub(super) fn key(&self) -> &[String] {
        &self.key
    }
}

/// What an index takes of a column; long texts are indexed by their beginning.
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
            catalog::resources(&["shipments".to_owned()], &own, &rules).map_err(|found| found.join("; "))?;
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
