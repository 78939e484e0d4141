//! Reads definitions: the file form, its merge with the user's additions, and the checks.
//!
//! All problems are collected, so that one look shows them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::definition::{
    ChildTable, Column, ColumnKind, ColumnSource, Definition, Detail, FilterTarget, List, Order, Pages, Refresh, Table,
};
use crate::domain::Combination;

/// Columns that every table has; a definition may not name its own like them.
const META_COLUMNS: [&str; 11] = [
    "shop_id",
    "document",
    "version",
    "fetched_at",
    "first_listed_at",
    "no_longer_listed_at",
    "row_hash",
    "document_hash",
    "position",
    "id",
    "combination",
];

/// Parts of the HTTP API that stand where a resource's listing would.
const RESERVED: [&str; 5] = ["keys", "parked", "runs", "shops", "status"];

/// Default of `overlap`: a day, so that rows which a list shows late are still found.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceForm {
    media_type: String,
    id: String,
    list: ListForm,
    detail: Option<DetailForm>,
    table: TableForm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListForm {
    path: String,
    items: String,
    #[serde(default = "unordered")]
    order: Order,
    pages: PagesForm,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<String>>,
    time: Option<String>,
    #[serde(default)]
    harmless: Vec<String>,
    overlap: Option<String>,
    history: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "style", rename_all = "kebab-case", deny_unknown_fields)]
enum PagesForm {
    Number { parameter: String },
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DetailForm {
    path: String,
    refresh: Option<RefreshForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshForm {
    until: Option<UntilForm>,
    time: Option<String>,
    every: String,
    max_age: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UntilForm {
    at: String,
    #[serde(rename = "in")]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableForm {
    name: Option<String>,
    id: Option<String>,
    time: Option<String>,
    #[serde(default)]
    search: Vec<String>,
    #[serde(default)]
    filters: BTreeMap<String, String>,
    #[serde(default)]
    indexes: Vec<String>,
    #[serde(default)]
    columns: BTreeMap<String, ColumnForm>,
    #[serde(default)]
    children: BTreeMap<String, ChildForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnForm {
    from: Option<String>,
    stream: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildForm {
    from: String,
    #[serde(default)]
    indexes: Vec<String>,
    columns: BTreeMap<String, ColumnForm>,
}

fn unordered() -> Order {
    Order::Unordered
}

/// Lays `over` upon `base`, table by table; other values replace.
pub fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Reads and checks one definition.
///
/// # Errors
/// Every problem found, each naming the resource, the key and the mend.
pub fn read(name: &str, table: &toml::Table) -> Result<Definition, Vec<String>> {
    let form: ResourceForm = toml::Value::Table(table.clone())
        .try_into()
        .map_err(|error: toml::de::Error| vec![format!("resource.{name}: {}", error.message())])?;
    let mut check = Check { resource: name, problems: Vec::new() };
    let definition = check.definition(name, form);
    if check.problems.is_empty() { Ok(definition) } else { Err(check.problems) }
}

struct Check<'a> {
    resource: &'a str,
    problems: Vec<String>,
}

impl Check<'_> {
    fn problem(&mut self, key: &str, what: impl std::fmt::Display) {
        let dot = if key.is_empty() { "" } else { "." };
        self.problems.push(format!("resource.{}{dot}{key}: {what}", self.resource));
    }

    fn definition(&mut self, name: &str, form: ResourceForm) -> Definition {
        self.identifier("", name);
        if RESERVED.contains(&name) {
            self.problem("", format!("/api/v1/{name} means something else; choose another name"));
        }
        self.pointer("id", &form.id);
        let list = self.list(form.list);
        let detail = form.detail.map(|detail| self.detail(detail));
        let streams: BTreeSet<String> =
            list.combinations.iter().flat_map(|c| c.0.iter().map(|(key, _)| key.clone())).collect();
        let table = self.table(name, form.table, &streams);
        Definition { name: name.to_owned(), media_type: form.media_type, id: form.id, list, detail, table }
    }

    fn list(&mut self, form: ListForm) -> List {
        self.path("list.path", &form.path);
        self.pointer("list.items", &form.items);
        if let Some(time) = &form.time {
            self.pointer("list.time", time);
        }
        for (parameter, values) in &form.parameters {
            if values.is_empty() {
                self.problem(
                    &format!("list.parameters.{parameter}"),
                    "has no values; give at least one, or leave it out",
                );
            }
        }
        if form.order == Order::NewestFirst && form.time.is_none() {
            self.problem("list.order", "newest-first needs `time`, the pointer to a row's time, to know when to stop");
        }
        let overlap = form.overlap.map_or(OVERLAP_DEFAULT, |text| self.duration("list.overlap", &text));
        let history = form.history.map(|text| self.duration("list.history", &text));
        List {
            path: form.path,
            items: form.items,
            order: form.order,
            pages: match form.pages {
                PagesForm::Number { parameter } => Pages::Number { parameter },
                PagesForm::None => Pages::None,
            },
            combinations: combinations(&form.parameters),
            time: form.time,
            harmless: form.harmless,
            overlap,
            history,
        }
    }

    fn detail(&mut self, form: DetailForm) -> Detail {
        self.path("detail.path", &form.path);
        if !form.path.contains("{id}") {
            self.problem("detail.path", "must hold {id}, the place of the document's id");
        }
        let refresh = form.refresh.map(|refresh| {
            if let Some(time) = &refresh.time {
                self.pointer("detail.refresh.time", time);
            }
            if let Some(until) = &refresh.until {
                self.pointer("detail.refresh.until.at", &until.at);
            }
            Refresh {
                until: refresh.until.map(|until| (until.at, until.values)),
                time: refresh.time,
                every: self.duration("detail.refresh.every", &refresh.every),
                max_age: self.duration("detail.refresh.max_age", &refresh.max_age),
            }
        });
        Detail { path: form.path, refresh }
    }

    fn table(&mut self, resource: &str, form: TableForm, streams: &BTreeSet<String>) -> Table {
        let name = form.name.unwrap_or_else(|| resource.to_owned());
        self.identifier("table.name", &name);
        let id_column = form.id.unwrap_or_else(|| "document_id".to_owned());
        self.identifier("table.id", &id_column);
        let columns = self.columns("table.columns", form.columns, &id_column, streams);
        let children: Vec<ChildTable> = form
            .children
            .into_iter()
            .map(|(child, form)| {
                let key = format!("table.children.{child}");
                self.identifier(&key, &child);
                self.pointer(&format!("{key}.from"), &form.from);
                let columns = self.columns(&format!("{key}.columns"), form.columns, &id_column, &BTreeSet::new());
                self.known(&format!("{key}.indexes"), &form.indexes, &columns, &id_column);
                ChildTable { name: child, from: form.from, columns, indexes: form.indexes }
            })
            .collect();
        self.known("table.indexes", &form.indexes, &columns, &id_column);
        self.known("table.search", &form.search, &columns, &id_column);
        self.known("table.time", form.time.as_slice(), &columns, &id_column);
        let filters = form
            .filters
            .into_iter()
            .filter_map(|(filter, target)| self.filter(filter, &target, &columns, &children))
            .collect();
        Table {
            name,
            id_column,
            columns,
            children,
            filters,
            time: form.time,
            search: form.search,
            indexes: form.indexes,
        }
    }

    fn columns(
        &mut self,
        key: &str,
        forms: BTreeMap<String, ColumnForm>,
        id: &str,
        streams: &BTreeSet<String>,
    ) -> Vec<Column> {
        let mut columns = Vec::with_capacity(forms.len());
        for (name, form) in forms {
            let key = format!("{key}.{name}");
            self.identifier(&key, &name);
            if META_COLUMNS.contains(&name.as_str()) || name == id {
                self.problem(&key, format!("`{name}` is a column that every table has; choose another name"));
            }
            let source = match (form.from, form.stream) {
                (Some(pointer), None) => {
                    self.pointer(&key, &pointer);
                    ColumnSource::Pointer(pointer)
                }
                (None, Some(parameter)) => {
                    if !streams.contains(&parameter) {
                        self.problem(&key, format!("`{parameter}` is no list parameter of this resource"));
                    }
                    ColumnSource::Stream(parameter)
                }
                _ => {
                    self.problem(&key, "needs either `from` (a JSON pointer) or `stream` (a list parameter)");
                    continue;
                }
            };
            match column_kind(&form.kind) {
                Some(kind) => columns.push(Column { name, source, kind }),
                None => self.problem(
                    &key,
                    format!(
                        "`{}` is no type; use text, text(64), datetime, date, integer, decimal(14,4), boolean or json",
                        form.kind
                    ),
                ),
            }
        }
        columns
    }

    fn filter(
        &mut self,
        name: String,
        target: &str,
        columns: &[Column],
        children: &[ChildTable],
    ) -> Option<(String, FilterTarget)> {
        let found = match target.split_once('.') {
            None => columns.iter().any(|c| c.name == target).then(|| FilterTarget::Column(target.to_owned())),
            Some((table, column)) => children
                .iter()
                .find(|child| child.name == table)
                .and_then(|child| child.columns.iter().find(|c| c.name == column))
                .map(|_| FilterTarget::Child { table: table.to_owned(), column: column.to_owned() }),
        };
        if found.is_none() {
            self.problem(
                &format!("table.filters.{name}"),
                format!("`{target}` is no column of this table or its children"),
            );
        }
        found.map(|target| (name, target))
    }

    fn known(&mut self, key: &str, names: &[String], columns: &[Column], id: &str) {
        for name in names {
            if name != id && !columns.iter().any(|column| column.name == *name) {
                self.problem(key, format!("`{name}` is no column of this table"));
            }
        }
    }

    fn identifier(&mut self, key: &str, name: &str) {
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        if !plain || !starts_well || name.len() > 60 {
            self.problem(key, format!("`{name}` is no plain SQL name; use a-z, 0-9 and _, a letter first, at most 60"));
        }
    }

    fn pointer(&mut self, key: &str, pointer: &str) {
        if !pointer.starts_with('/') {
            self.problem(key, format!("`{pointer}` is no JSON pointer; it must begin with /"));
        }
    }

    fn path(&mut self, key: &str, path: &str) {
        if !path.starts_with('/') || path.contains('?') {
            self.problem(key, format!("`{path}` is no path; it must begin with / and hold no parameters"));
        }
    }

    fn duration(&mut self, key: &str, text: &str) -> Duration {
        parse_duration(text).unwrap_or_else(|| {
            self.problem(key, format!("`{text}` is no duration; write it like \"90s\", \"15min\", \"24h\" or \"30d\""));
            Duration::ZERO
        })
    }
}

/// Reads `500ms`, `90s`, `15min`, `24h`, `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

fn column_kind(text: &str) -> Option<ColumnKind> {
    Some(match text {
        "text" => ColumnKind::Text(None),
        "datetime" => ColumnKind::Datetime,
        "date" => ColumnKind::Date,
        "integer" => ColumnKind::Integer,
        "boolean" => ColumnKind::Boolean,
        "json" => ColumnKind::Json,
        _ => {
            let (kind, rest) = text.split_once('(')?;
            let arguments: Vec<u16> =
                rest.strip_suffix(')')?.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
            match (kind, arguments.as_slice()) {
                ("text", [length @ 1..=1000]) => ColumnKind::Text(Some(*length)),
                ("decimal", [digits @ 1..=60, scale]) if scale <= digits && *scale <= 30 => {
                    ColumnKind::Decimal { digits: u8::try_from(*digits).ok()?, scale: u8::try_from(*scale).ok()? }
                }
                _ => return None,
            }
        }
    })
}

/// All combinations of the parameters' values, in a fixed order.
fn combinations(parameters: &BTreeMap<String, Vec<String>>) -> Vec<Combination> {
    let mut all = vec![Combination::default()];
    for (name, values) in parameters {
        all = all
            .iter()
            .flat_map(|combination| {
                values.iter().map(|value| {
                    let mut longer = combination.clone();
                    longer.0.push((name.clone(), value.clone()));
                    longer
                })
            })
            .collect();
    }
    all
}
