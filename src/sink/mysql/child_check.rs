//! Checks that the child tables hold exactly the rows of the stored documents.
//!
//! Compared in this process, page by page, with the rows extracted from each stored document: columns of a child table
//! may come from anywhere in it, which no SQL condition expresses.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::{Params, Row, Value, from_value_opt};

use crate::catalog::extract::{Cell, extract};
use crate::domain::Json;
use crate::sink::SinkError;

use super::Mysql;
use super::alike::alike;
use super::layout::Layout;
use super::value::text_value;

/// Documents per page; fewer where they are large.
const PAGE_MAX: u64 = 200;
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Part of a shop's documents, by id.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    pub shop: &'a str,
    /// Ids above this one.
    pub after: &'a str,
    /// Ids up to this one; None: to the end.
    pub last: Option<&'a str>,
}

/// A stored document, and the rows that it should have in each child table.
struct ExpectedRows {
    version: u64,
    rows: Vec<Vec<Vec<Cell>>>,
}

/// What a child table holds of a document.
#[derive(Default)]
struct ChildMatch {
    /// Rows that match the document, each at its position.
    right: usize,
    /// There is a row that the document does not have.
    has_other: bool,
}

impl Mysql {
    /// Finds the documents whose rows in some child table differ from the stored document. A document that is being
    /// written may be among them: check twice.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn wrong_children(&self, resource: &str, range: Range<'_>) -> Result<BTreeSet<String>, SinkError> {
        let layout = self.layout(resource)?;
        let mut wrong = BTreeSet::new();
        if layout.children.is_empty() {
            return Ok(wrong);
        }
        let mut after = range.after.to_owned();
        loop {
            let (expected, has_more) = self.expected(layout, Range { after: &after, ..range }).await?;
            let Some(last) = expected.last_key_value().map(|(id, _)| id.clone()) else { return Ok(wrong) };
            for table in 0..layout.children.len() {
                let range = Range { after: &after, last: Some(&last), ..range };
                let found = self.found(layout, table, range, &expected).await?;
                let differs = |(id, one): &(&String, &ExpectedRows)| {
                    let wanted = one.rows.get(table).map_or(0, Vec::len);
                    let found = found.get(*id);
                    found.is_some_and(|found| found.has_other) || found.map_or(0, |found| found.right) != wanted
                };
                wrong.extend(expected.iter().filter(differs).map(|(id, _)| id.clone()));
            }
            if !has_more {
                return Ok(wrong);
            }
            after = last;
        }
    }

    /// Reads the next documents, and whether there are more.
    async fn expected(
        &self,
        layout: &Layout,
        range: Range<'_>,
    ) -> Result<(BTreeMap<String, ExpectedRows>, bool), SinkError> {
        let (table, id) = (&layout.parent.name, &layout.definition.table.id_column);
        let (condition, mut values) = condition(id, range);
        let text = format!(
            "SELECT `{id}`,`combination`,`version`,`document` FROM `{table}` WHERE {condition} ORDER BY `{id}` LIMIT ?"
        );
        values.push(Value::UInt(PAGE_MAX));
        let (mut expected, mut bytes, mut count) = (BTreeMap::new(), 0, 0);
        let take = |(id, combination, version, document): (String, String, u64, Vec<u8>)| {
            bytes += document.len();
            count += 1;
            // A document edited into invalid JSON has no rows to compare with.
            let value = Json::parse(&document).unwrap_or(Json::Null);
            let combination = self.combination(&layout.definition.name, &combination);
            let laid_out = extract(&layout.definition, &id, &value, &combination);
            expected.insert(id, ExpectedRows { version, rows: laid_out.children });
            Ok(bytes < PAGE_BYTES_MAX)
        };
        self.read_while(&text, Params::Positional(values), take).await?;
        Ok((expected, count == PAGE_MAX || bytes >= PAGE_BYTES_MAX))
    }

    /// Compares the rows of a child table with the expected ones.
    async fn found(
        &self,
        layout: &Layout,
        table: usize,
        range: Range<'_>,
        expected: &BTreeMap<String, ExpectedRows>,
    ) -> Result<BTreeMap<String, ChildMatch>, SinkError> {
        let id = &layout.definition.table.id_column;
        let Some(child) = layout.definition.table.children.get(table) else { return Ok(BTreeMap::new()) };
        let (condition, values) = condition(id, range);
        let columns: String = child.columns.iter().map(|column| format!(",`{}`", column.name)).collect();
        let text = format!("SELECT `{id}`,`position`,`version`{columns} FROM `{}` WHERE {condition}", child.name);
        let mut found: BTreeMap<String, ChildMatch> = BTreeMap::new();
        let take = |row: Row| {
            let values: Vec<Value> = row.unwrap_raw().into_iter().flatten().collect();
            let [Value::Bytes(id), position, version, cells @ ..] = values.as_slice() else { return Ok(true) };
            let Some((id, document)) = str::from_utf8(id).ok().and_then(|id| expected.get_key_value(id)) else {
                return Ok(true);
            };
            let number = |value: &Value| from_value_opt::<u64>(value.clone()).ok();
            let position = number(position).and_then(|position| usize::try_from(position).ok());
            let asked = position.and_then(|position| document.rows.get(table)?.get(position));
            let is_alike = |asked: &Vec<Cell>| {
                let columns = child.columns.iter().zip(cells);
                asked.iter().zip(columns).all(|(cell, (column, there))| alike(cell, column.kind, there))
            };
            let of_document = found.entry(id.clone()).or_default();
            match asked.is_some_and(is_alike) && number(version) == Some(document.version) {
                true => of_document.right += 1,
                false => of_document.has_other = true,
            }
            Ok(true)
        };
        self.read_while(&text, Params::Positional(values), take).await?;
        Ok(found)
    }
}

fn condition(id: &str, range: Range<'_>) -> (String, Vec<Value>) {
    let mut condition = format!("`shop_id` = ? AND `{id}` > ?");
    let mut values = vec![text_value(range.shop), text_value(range.after)];
    if let Some(last) = range.last {
        condition.push_str(&format!(" AND `{id}` <= ?"));
        values.push(text_value(last));
    }
    (condition, values)
}
