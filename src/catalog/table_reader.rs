//! Reads and checks the `table` of a definition: columns, child tables, filters and indexes. Called by [`super::reader`].

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use toml::Value;

use super::cell::text_cell;
use super::columns::{ChildTable, Column, ColumnKind, ColumnSource, Place, Table};
use super::toml_fields::TomlFields;
use crate::domain::ListParams;

/// Columns that Waybill adds to every table; a definition may not use these names.
pub(super) const META_COLUMNS: [&str; 11] = [
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

/// Longest name of a table or column.
pub(super) const NAME_MAX: usize = 60;

/// Parameters of every listing.
const LISTING: [&str; 6] = ["shop", "from", "to", "q", "limit", "cursor"];

/// The parts of the definition that its columns depend on.
pub(super) struct Around<'a> {
    pub(super) combinations: &'a [ListParams],
    pub(super) has_parent: bool,
    pub(super) zone: Option<&'a TimeZone>,
}

/// Where a column may take its value from.
struct Reach<'a> {
    around: &'a Around<'a>,
    /// Arrays around the element of a child table; None: the document itself.
    depth: Option<usize>,
    id: &'a str,
}

/// The columns of one table.
#[derive(Default)]
struct Columns {
    read: Vec<Column>,
    /// Names of columns that could not be read. That was reported, so references to them are not.
    unread: BTreeSet<String>,
    /// No column could be read.
    are_unread: bool,
}

impl Columns {
    fn has(&self, name: &str) -> bool {
        self.are_unread || self.unread.contains(name) || self.kind(name).is_some()
    }

    fn kind(&self, name: &str) -> Option<ColumnKind> {
        self.read.iter().find(|column| column.name == name).map(|column| column.kind)
    }
}

/// A child table that filters and the search still refer to.
struct Child {
    name: String,
    from: String,
    columns: Columns,
    indexes: Vec<String>,
}

/// Reads the table of a resource.
pub(super) fn read(resource: &str, fields: TomlFields<'_>, around: &Around<'_>) -> Table {
    let name = fields.text("name").unwrap_or_else(|| resource.to_owned());
    if name != resource {
        identifier(&fields, "name", &name);
    }
    let id_column = fields.text("id").unwrap_or_else(|| "document_id".to_owned());
    identifier(&fields, "id", &id_column);
    if META_COLUMNS.contains(&id_column.as_str()) {
        fields.problem("id", format!("`{id_column}` is the name of a column that Waybill adds; choose another one"));
    }
    let reach = Reach { around, depth: None, id: &id_column };
    let columns = columns(&fields, &reach);
    let mut children: Vec<Child> = Vec::new();
    let mut unread = BTreeSet::new();
    for (child, inner) in fields.named_tables("children") {
        let Some(inner) = inner else {
            unread.insert(child);
            continue;
        };
        identifier(&inner, "", &child);
        if child == name {
            inner.problem("", "has the name of the table itself; choose another one");
        }
        children.push(self::child(child, inner, &reach));
    }
    let known = |key: &'static str, names: &[String]| known(&fields, key, names, &columns, &id_column);
    let indexes = fields.texts("indexes").unwrap_or_default();
    known("indexes", &indexes);
    can_have_index(&fields, &indexes, &columns);
    let time = fields.text("time");
    known("time", time.as_slice());
    let is_time = |name: &str| {
        columns.kind(name).map_or(name != id_column, |kind| matches!(kind, ColumnKind::Datetime | ColumnKind::Date))
    };
    if let Some(name) = time.as_deref().filter(|name| !is_time(name)) {
        fields.problem("time", format!("`{name}` is neither a datetime nor a date"));
    }
    let places = Places { columns: &columns, children: &children, unread: &unread, id: &id_column };
    let (filters, search) = (filters(&fields, &places), search(&fields, &places));
    fields.end();
    let whole = |Child { name, from, columns, indexes }| ChildTable { name, from, columns: columns.read, indexes };
    let children = children.into_iter().map(whole).collect();
    Table { name, id_column, columns: columns.read, children, filters, time, search, indexes }
}

fn child(name: String, fields: TomlFields<'_>, parent: &Reach<'_>) -> Child {
    let hint = "give the pointer to the array, like from = \"/orderItems\"";
    let from = fields.needed("from", fields.pointer("from", false), hint);
    let depth = from.as_deref().map_or(0, |from| from.split('/').filter(|token| *token == "*").count());
    if from.as_deref().is_some_and(|from| from.ends_with("/*")) {
        let hint = "each element is a row anyway; an element that is an array fits a json column with from = \"\"";
        fields.problem("from", format!("ends with `*`; leave that out: {hint}"));
    }
    let reach = Reach { depth: Some(depth), ..*parent };
    let columns = columns(&fields, &reach);
    let indexes = fields.texts("indexes").unwrap_or_default();
    known(&fields, "indexes", &indexes, &columns, parent.id);
    can_have_index(&fields, &indexes, &columns);
    fields.end();
    Child { name, from: from.unwrap_or_default(), columns, indexes }
}

fn columns(fields: &TomlFields<'_>, reach: &Reach<'_>) -> Columns {
    let are_unread = fields.has("columns") && fields.table("columns").is_none();
    let mut columns = Columns { are_unread, ..Columns::default() };
    for (name, inner) in fields.named_tables("columns") {
        match inner.and_then(|inner| column(&name, inner, reach)) {
            Some(column) => columns.read.push(column),
            None => {
                columns.unread.insert(name);
            }
        }
    }
    columns
}

fn column(name: &str, fields: TomlFields<'_>, reach: &Reach<'_>) -> Option<Column> {
    identifier(&fields, "", name);
    if name == reach.id {
        fields.problem("", format!("`{name}` is the id column, which every table has; leave it out here"));
    } else if META_COLUMNS.contains(&name) {
        fields.problem("", format!("`{name}` is the name of a column that Waybill adds; choose another one"));
    }
    let from = fields.pointer_to_one("from", reach.depth.is_some());
    let (stream, parent) = (fields.text("stream"), fields.flag("parent"));
    let above = above(&fields, reach);
    let is_given = |key: &&&str| fields.has(key) && !(**key == "parent" && parent == Some(false));
    let count = ["from", "stream", "parent", "above"].iter().filter(is_given).count();
    let hint =
        "say where its value comes from: from (a JSON pointer), stream (a list parameter), parent = true, or above";
    let source = match (from, stream, parent, above) {
        _ if count == 0 => fields.needed("from", None, hint),
        _ if count > 1 => {
            fields.problem("", "needs exactly one of from, stream, parent and above; leave the others out");
            None
        }
        (Some(pointer), ..) => Some(ColumnSource::Pointer(pointer)),
        (_, Some(parameter), ..) => {
            if reach.around.combinations.iter().all(|combination| combination.get(&parameter).is_none()) {
                fields.problem("stream", format!("`{parameter}` is not a list parameter of this resource"));
            }
            Some(ColumnSource::Stream(parameter))
        }
        (_, _, Some(true), _) => {
            if !reach.around.has_parent {
                fields.problem("parent", "this resource has no parent");
            }
            Some(ColumnSource::Parent)
        }
        (_, _, _, above) => above,
    };
    let kind = fields.needed("type", fields.text("type"), "give its type, like type = \"text(64)\"");
    let read = kind.as_deref().and_then(column_kind);
    if let (Some(kind), None) = (&kind, read) {
        fields.problem("type", format!("`{kind}` is not a type; {}", types(kind)));
    }
    let own_zone = fields.zone("zone");
    if own_zone.is_some() && read.is_some_and(|kind| kind != ColumnKind::Datetime) {
        fields.problem("zone", "needs type = \"datetime\"");
    }
    fields.end();
    let (source, kind) = (source?, read?);
    if let ColumnSource::Stream(parameter) = &source {
        let values: BTreeSet<&str> = reach.around.combinations.iter().filter_map(|one| one.get(parameter)).collect();
        for value in values.into_iter().filter(|value| text_cell(kind, value).is_none()) {
            fields.problem("type", format!("the parameter's value `{value}` does not fit {kind}; use text"));
        }
    }
    let zone = own_zone.or_else(|| reach.around.zone.cloned()).filter(|_| kind == ColumnKind::Datetime);
    Some(Column { name: name.to_owned(), source, kind, zone })
}

fn above(fields: &TomlFields<'_>, reach: &Reach<'_>) -> Option<ColumnSource> {
    let pointer = fields.pointer_to_one("above", false);
    let up = fields.number("up");
    let Some(pointer) = pointer else {
        if up.is_some() {
            fields.problem("up", "needs `above`");
        }
        return None;
    };
    let up = up.map_or(1, |up| usize::try_from(up).unwrap_or(usize::MAX));
    match reach.depth {
        None => fields.problem("above", "is only for the columns of a child table; use `from`"),
        // The document itself is above the outermost array.
        Some(depth) if up == 0 || up > depth + 1 => {
            fields.problem("up", format!("must be from 1 to {}, the depth of this array", depth + 1));
        }
        Some(_) => {}
    }
    Some(ColumnSource::Above { pointer, up })
}

/// The columns that filters and the search may name.
struct Places<'a> {
    columns: &'a Columns,
    children: &'a [Child],
    /// Names of child tables that could not be read.
    unread: &'a BTreeSet<String>,
    id: &'a str,
}

impl Places<'_> {
    /// Finds a column by name; reports it if there is none.
    fn find(&self, fields: &TomlFields<'_>, at: &str, name: &str) -> Option<Place> {
        let found = match name.split_once('.') {
            None if name == self.id => Some(Place::Id),
            None => self.columns.has(name).then(|| Place::Column(name.to_owned())),
            Some((table, column)) => {
                let has_column = |child: &Child| child.name == table && child.columns.has(column);
                (self.unread.contains(table) || self.children.iter().any(has_column))
                    .then(|| Place::Child { table: table.to_owned(), column: column.to_owned() })
            }
        };
        if found.is_none() {
            fields.problem(at, format!("`{name}` is not a column of this table or its children"));
        }
        found
    }
}

fn filters(fields: &TomlFields<'_>, places: &Places<'_>) -> Vec<(String, Place)> {
    let mut filters = Vec::new();
    for (name, value) in fields.named("filters") {
        let at = format!("filters.{name}");
        let Value::String(target) = value else {
            fields.problem(&at, "must be the name of a column, or of a child's column like \"order_items.ean\"");
            continue;
        };
        if !is_identifier(&name) {
            fields.problem(&at, "a filter needs a plain name: a-z, 0-9 and _, a letter first");
        }
        if LISTING.contains(&name.as_str()) {
            fields.problem(&at, format!("every listing already has a parameter `{name}`; choose another name"));
        }
        filters.extend(places.find(fields, &at, target).map(|target| (name, target)));
    }
    filters
}

fn search(fields: &TomlFields<'_>, places: &Places<'_>) -> Vec<Place> {
    let names = fields.texts("search").unwrap_or_default();
    names.iter().filter_map(|name| places.find(fields, "search", name)).collect()
}

fn known(fields: &TomlFields<'_>, key: &str, names: &[String], columns: &Columns, id: &str) {
    for name in names.iter().filter(|name| *name != id && !columns.has(name)) {
        fields.problem(key, format!("`{name}` is not a column of this table"));
    }
}

fn can_have_index(fields: &TomlFields<'_>, indexes: &[String], columns: &Columns) {
    let is_json = |index: &&String| columns.kind(index) == Some(ColumnKind::Json);
    for index in indexes.iter().filter(is_json) {
        fields.problem("indexes", format!("`{index}` is JSON and cannot have an index; leave it out"));
    }
    let mut seen = BTreeSet::new();
    for index in indexes.iter().filter(|index| !seen.insert(*index)) {
        fields.problem("indexes", format!("`{index}` is listed twice; leave one out"));
    }
}

/// Whether a text is a valid name of a resource, table or column: `a-z`, `0-9` and `_`, a letter first, at most 60.
pub fn is_identifier(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    plain && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.len() <= NAME_MAX
}

pub(super) fn identifier(fields: &TomlFields<'_>, key: &str, name: &str) {
    if !is_identifier(name) {
        fields
            .problem(key, format!("`{name}` is not a plain SQL name; use a-z, 0-9 and _, a letter first, at most 60"));
    }
}

/// The valid types, for the message about an invalid one.
fn types(wrong: &str) -> &'static str {
    match wrong.split_once('(') {
        Some(("text", _)) => "text(n) takes up to n characters, 1 to 1000; use text for longer ones",
        Some(("decimal", _)) => "decimal(d,s) takes d digits, 1 to 60, of which s, 0 to 30, after the point",
        _ => "use text, text(64), datetime, date, integer, decimal(14,4), boolean or json",
    }
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
