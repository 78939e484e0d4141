//! Reads one page of documents, or one document.
//!
//! Pages follow the primary key, so a page costs the same at any depth, and rows inserted between two pages disturb
//! neither.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mysql_async::prelude::FromRow;
use mysql_async::{FromRowError, Params, Row, Value};

use crate::catalog::definition::{ColumnKind, Place, Table};
use crate::catalog::extract::extract;
use crate::catalog::filter::held;
use crate::domain::{Json, ShopId};
use crate::sink::scan::{Progress, Scan};
use crate::sink::{Item, ItemPage, ListQuery, SinkError, SinkErrorClass};

use super::Mysql;
use super::layout::Layout;
use super::value::{datetime_value, text_value, timestamp_of};

/// Begins a statement that the server itself stops after five seconds, the time of a read: MariaDB knows the first form,
/// MySQL the second, and each takes the other's for a comment.
const SELECT: &str = "/*M!100101 SET STATEMENT max_statement_time = 5 FOR */ SELECT /*+ MAX_EXECUTION_TIME(5000) */";
/// Rows that one slice reads at most.
const ROWS_AT_ONCE: usize = 128;
/// Rows that one slice looks at, if no index leads to those that match: at first, and then about as many as
/// [`SLICE_TIME`] allows.
const WINDOW: usize = 500;
const WINDOWS: std::ops::RangeInclusive<usize> = 100..=8_000;
const SLICE_TIME: Duration = Duration::from_millis(15);
/// Escapes the wildcards of LIKE; unlike a backslash it means the same in every sql_mode.
const ESCAPE: char = '!';

impl Mysql {
    /// Reads one page of a resource.
    ///
    /// # Errors
    /// Class `Operator` for a resource that is not configured; else the server's. Cancel safe.
    pub async fn list(&self, resource: &str, query: &ListQuery) -> Result<ItemPage, SinkError> {
        let mut scan = Scan::new(query);
        while self.slice(resource, &mut scan).await? == Progress::More {}
        Ok(scan.page())
    }

    /// Reads some more rows of a page.
    ///
    /// # Errors
    /// As [`Mysql::list`]. Cancel safe.
    pub(in crate::sink) async fn slice(&self, resource: &str, scan: &mut Scan) -> Result<Progress, SinkError> {
        let layout = self.layout(resource)?;
        let table = &layout.definition.table;
        let Some(mut condition) = Condition::new(layout, &scan.query) else { return Ok(Progress::Done) };
        let begun = Instant::now();
        let window_end = if has_index(table, &scan.query) { None } else { self.window_end(layout, scan).await? };
        if let Some((shop, id)) = &window_end {
            condition.up_to(&table.id_column, shop, id);
        }
        let rows_max = scan.wanted().min(ROWS_AT_ONCE);
        condition.values.push(Value::UInt(rows_max as u64));
        let text = format!(
            "{} WHERE {} ORDER BY t.`shop_id`, t.`{}` LIMIT ?",
            select(layout),
            condition.text(),
            table.id_column
        );
        let (mut rows, mut last, mut is_full) = (0, None, false);
        // A page that fills up early must not keep the memory of the rows it dropped.
        let (found, limit) = (&mut scan.found, scan.query.limit);
        let take = |row| {
            let item = self.item(layout, row)?;
            (rows, last) = (rows + 1, Some((item.shop_id.clone(), item.id.clone())));
            is_full = !found.take(item, limit);
            Ok(!is_full)
        };
        self.read_while(&text, Params::Positional(condition.values), take).await?;
        scan.fit_window(begun.elapsed());
        let next = if rows == rows_max { last } else { window_end };
        match next {
            Some(next) if !is_full => {
                scan.reached(next);
                Ok(Progress::More)
            }
            _ => Ok(Progress::Done),
        }
    }

    /// The last of the rows that the next slice looks at; None: it looks at all that are left.
    async fn window_end(&self, layout: &Layout, scan: &mut Scan) -> Result<Option<(ShopId, String)>, SinkError> {
        let Some(mut condition) = Condition::of_window(layout, &scan.query) else { return Ok(None) };
        if scan.window == 0 {
            scan.window = WINDOW;
        }
        condition.values.push(Value::UInt(scan.window as u64));
        let id = &layout.definition.table.id_column;
        let text = format!(
            "{SELECT} t.`shop_id`, t.`{id}` FROM `{}` t WHERE {} ORDER BY t.`shop_id`, t.`{id}` LIMIT 1 OFFSET ?",
            layout.parent.name,
            condition.text(),
        );
        let rows: Vec<(String, String)> = self.read(&text, Params::Positional(condition.values)).await?;
        Ok(rows.into_iter().next().map(|(shop, id)| (shop.into(), id)))
    }

    /// Reads one document; None if there is no such id.
    ///
    /// # Errors
    /// As [`Mysql::list`]. Cancel safe.
    pub async fn get(&self, resource: &str, shop: &str, id: &str) -> Result<Option<Item>, SinkError> {
        let layout = self.layout(resource)?;
        let text =
            format!("{} WHERE t.`shop_id` = ? AND t.`{}` = ?", select(layout), layout.definition.table.id_column);
        let values = Params::Positional(vec![text_value(shop), text_value(id)]);
        let rows: Vec<SelectedRow> = self.read(&text, values).await?;
        let item = rows.into_iter().next().map(|row| self.item(layout, row)).transpose()?;
        // The server ignores trailing spaces.
        Ok(item.filter(|item| item.shop_id == shop && item.id == id))
    }

    fn item(&self, layout: &Layout, row: SelectedRow) -> Result<Item, SinkError> {
        let unreadable = || SinkError::new(SinkErrorClass::Unknown, "MySQL: a row without a time or a text");
        let combination = self.combination(&layout.definition.name, &row.combination);
        // A document edited by hand into invalid JSON gives empty columns, not an error.
        let value = Json::parse(&row.document).unwrap_or(Json::Null);
        let cells = extract(&layout.definition, &row.id, &value, &combination).cells;
        let names = layout.definition.table.columns.iter().map(|column| column.name.clone());
        Ok(Item {
            shop_id: row.shop_id.into(),
            id: row.id,
            fetched_at: timestamp_of(&row.fetched_at).ok_or_else(unreadable)?,
            version: row.version,
            first_listed_at: timestamp_of(&row.first_listed_at).ok_or_else(unreadable)?,
            no_longer_listed_at: timestamp_of(&row.no_longer_listed_at),
            document: Bytes::from(row.document),
            columns: names.zip(cells).collect(),
        })
    }
}

impl Scan {
    /// Sizes the next window by the time that the last one took.
    fn fit_window(&mut self, took: Duration) {
        if self.window > 0 {
            let next = if took < SLICE_TIME / 2 {
                self.window * 2
            } else if took > SLICE_TIME * 2 {
                self.window / 2
            } else {
                self.window
            };
            self.window = next.clamp(*WINDOWS.start(), *WINDOWS.end());
        }
    }
}

/// Whether an index leads the server to the rows that match, or all rows match.
fn has_index(table: &Table, query: &ListQuery) -> bool {
    let is_scan = query.q.is_some() || query.filters.iter().any(|(place, _)| !is_indexed(table, place));
    let has_time = query.from.is_some() || query.to.is_some();
    !is_scan && (!has_time || table.time.as_ref().is_some_and(|time| table.indexes.contains(time)))
}

/// Whether the column of a filter has an index.
fn is_indexed(table: &Table, place: &Place) -> bool {
    match place {
        Place::Id => true,
        Place::Column(name) => table.indexes.contains(name),
        Place::Child { table: child, column } => {
            table.children.iter().any(|known| known.name == *child && known.indexes.contains(column))
        }
    }
}

fn select(layout: &Layout) -> String {
    format!(
        "{SELECT} t.`shop_id`, t.`{}`, t.`combination`, t.`document`, t.`version`, t.`fetched_at`, t.`first_listed_at`, \
         t.`no_longer_listed_at` FROM `{}` t",
        layout.definition.table.id_column, layout.parent.name
    )
}

/// A selected row.
struct SelectedRow {
    shop_id: String,
    id: String,
    combination: String,
    document: Vec<u8>,
    version: u64,
    fetched_at: Value,
    first_listed_at: Value,
    no_longer_listed_at: Value,
}

impl FromRow for SelectedRow {
    fn from_row_opt(row: Row) -> Result<SelectedRow, FromRowError> {
        let (shop_id, id, combination, document, version, fetched_at, first_listed_at, no_longer_listed_at) =
            FromRow::from_row_opt(row)?;
        Ok(SelectedRow {
            shop_id,
            id,
            combination,
            document,
            version,
            fetched_at,
            first_listed_at,
            no_longer_listed_at,
        })
    }
}

/// The conditions of a WHERE, joined by AND, with their values in order.
#[derive(Default)]
struct Condition {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Condition {
    /// None if nothing can match.
    fn new(layout: &Layout, query: &ListQuery) -> Option<Condition> {
        let table = &layout.definition.table;
        let mut condition = Condition::of_places(table, query)?;
        let time = table.time.as_deref().unwrap_or("fetched_at");
        if let Some(from) = query.from {
            condition.add(&format!("t.`{time}` >= ?"), [datetime_value(from)]);
        }
        if let Some(to) = query.to {
            condition.add(&format!("t.`{time}` < ?"), [datetime_value(to)]);
        }
        for (place, text) in &query.filters {
            condition.filter(table, place, text)?;
        }
        if let Some(q) = &query.q {
            condition.search(table, q)?;
        }
        Some(condition)
    }

    /// The rows among which a slice looks for those that match: all, or those that an index leads to.
    fn of_window(layout: &Layout, query: &ListQuery) -> Option<Condition> {
        let table = &layout.definition.table;
        let mut condition = Condition::of_places(table, query)?;
        for (place, text) in query.filters.iter().filter(|(place, _)| is_indexed(table, place)) {
            condition.filter(table, place, text)?;
        }
        Some(condition)
    }

    /// The rows of the shops behind the cursor.
    fn of_places(table: &Table, query: &ListQuery) -> Option<Condition> {
        let id = &table.id_column;
        let mut condition = Condition::default();
        match query.shops.as_deref() {
            Some([]) => return None,
            Some(shops) => condition.add(
                &format!("t.`shop_id` IN ({})", vec!["?"; shops.len()].join(",")),
                shops.iter().map(|shop| text_value(shop)),
            ),
            None => {}
        }
        if let Some((shop, after)) = &query.after {
            // Both servers turn this form into two ranges of the primary key.
            condition.add(
                &format!("(t.`shop_id` > ? OR (t.`shop_id` = ? AND t.`{id}` > ?))"),
                [text_value(shop), text_value(shop), text_value(after)],
            );
        }
        Some(condition)
    }

    /// Only rows up to a place, that one included.
    fn up_to(&mut self, id: &str, shop: &ShopId, last: &str) {
        let part = format!("(t.`shop_id` < ? OR (t.`shop_id` = ? AND t.`{id}` <= ?))");
        self.add(&part, [text_value(shop), text_value(shop), text_value(last)]);
    }

    fn add(&mut self, part: &str, values: impl IntoIterator<Item = Value>) {
        self.parts.push(part.to_owned());
        self.values.extend(values);
    }

    fn text(&self) -> String {
        if self.parts.is_empty() { "TRUE".to_owned() } else { self.parts.join(" AND ") }
    }

    /// None if the column is unknown, or the text is not a value of its type.
    fn filter(&mut self, table: &Table, place: &Place, text: &str) -> Option<()> {
        let (name, kind) = column(table, place)?;
        let (part, values) = equals(&name, kind, text)?;
        self.add(&within(table, place, &part), values);
        Some(())
    }

    /// None if the resource has no searchable column.
    fn search(&mut self, table: &Table, q: &str) -> Option<()> {
        let pattern = format!("%{}%", escaped(q));
        let mut parts = Vec::with_capacity(table.search.len());
        for place in &table.search {
            let (name, _) = column(table, place)?;
            let part = format!("CAST({name} AS CHAR) COLLATE utf8mb4_unicode_ci LIKE ? ESCAPE '{ESCAPE}'");
            parts.push(within(table, place, &part));
        }
        if parts.is_empty() {
            return None;
        }
        self.add(&format!("({})", parts.join(" OR ")), parts.iter().map(|_| text_value(&pattern)));
        Some(())
    }
}

/// The column's name in a condition, and its type; None if there is no such column.
fn column(table: &Table, place: &Place) -> Option<(String, ColumnKind)> {
    let (alias, columns, name) = match place {
        Place::Id => return Some((format!("t.`{}`", table.id_column), ColumnKind::Text(None))),
        Place::Column(name) => ("t", &table.columns, name),
        Place::Child { table: child, column } => {
            ("c", &table.children.iter().find(|known| known.name == *child)?.columns, column)
        }
    };
    let column = columns.iter().find(|column| column.name == *name)?;
    Some((format!("{alias}.`{name}`"), column.kind))
}

/// The condition itself, or EXISTS over the rows of the child table.
fn within(table: &Table, place: &Place, part: &str) -> String {
    match place {
        Place::Id | Place::Column(_) => part.to_owned(),
        Place::Child { table: child, .. } => format!(
            "EXISTS (SELECT 1 FROM `{child}` c WHERE c.`shop_id` = t.`shop_id` AND c.`{id}` = t.`{id}` AND {part})",
            id = table.id_column
        ),
    }
}

/// Builds `name = text` for the type of a column.
fn equals(name: &str, kind: ColumnKind, text: &str) -> Option<(String, Vec<Value>)> {
    let held = held(kind, text)?;
    let (part, value) = match kind {
        // The first comparison uses the index, the second compares bytes: free text is case-insensitive, and every
        // text comparison ignores trailing spaces.
        ColumnKind::Text(_) => {
            let part = format!("({name} = ? AND CAST({name} AS BINARY) = CAST(? AS BINARY))");
            return Some((part, vec![text_value(&held), text_value(&held)]));
        }
        ColumnKind::Json => (format!("CAST({name} AS CHAR) COLLATE utf8mb4_bin = ?"), text_value(&held)),
        ColumnKind::Boolean => (format!("{name} = ?"), Value::Int(i64::from(held == "true"))),
        ColumnKind::Integer => (format!("{name} = ?"), Value::Int(held.parse().ok()?)),
        ColumnKind::Datetime => (format!("{name} = CAST(? AS DATETIME(6))"), text_value(&held)),
        ColumnKind::Date => (format!("{name} = ?"), text_value(&held)),
        // Compared with a text, a decimal would become a floating-point number.
        ColumnKind::Decimal { digits, scale } => {
            (format!("{name} = CAST(? AS DECIMAL({digits},{scale}))"), text_value(&held))
        }
    };
    Some((part, vec![value]))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | ESCAPE) {
            out.push(ESCAPE);
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{equals, escaped};
    use crate::catalog::definition::ColumnKind;

    #[test]
    fn wildcards_are_escaped() {
        assert_eq!(escaped(r"50%_!\'"), r"50!%!_!!\'");
    }

    #[test]
    fn a_filter_that_is_no_value_of_the_type_finds_nothing() {
        for (kind, text) in [
            (ColumnKind::Integer, "1 OR 1=1"),
            (ColumnKind::Boolean, "1"),
            (ColumnKind::Decimal { digits: 5, scale: 2 }, "nan"),
        ] {
            assert!(equals("c", kind, text).is_none(), "{text}");
        }
        assert!(equals("c", ColumnKind::Boolean, "true").is_some());
    }
}
