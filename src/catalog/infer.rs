//! From sampled answers to a definition, as text to edit: what the API says is typed, what it does not say is guessed
//! and marked so. Pure; called for `waybill schema infer`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::layout::META_COLUMNS;

/// What was sampled.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub resource: String,
    pub media_type: String,
    pub path: String,
    pub detail: Option<String>,
    /// The list parameters that were sent.
    pub parameters: Vec<(String, String)>,
    /// The list's answer, and where its rows are in it.
    pub answer: Value,
    pub items: String,
    /// Pointer to the id.
    pub id: String,
    pub has_link_header: bool,
    pub documents: Vec<Value>,
}

/// Where the rows of an answer are: the answer itself, or its first array, also one level down.
pub fn find_items(answer: &Value) -> Option<String> {
    if answer.is_array() {
        return Some(String::new());
    }
    let members = answer.as_object()?;
    let array = |(key, value): (&String, &Value)| value.is_array().then(|| format!("/{}", escaped(key)));
    members.iter().find_map(array).or_else(|| {
        members.iter().find_map(|(outer, value)| {
            let inner = value.as_object()?.iter().find_map(array)?;
            Some(format!("/{}{inner}", escaped(outer)))
        })
    })
}

/// The field that tells the rows apart: a text or whole number at the top of each row, named like an id if possible.
pub fn find_id(rows: &[Value], resource: &str) -> Option<String> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    };
    let is_unique = |key: &String| {
        let values: Option<BTreeSet<String>> = rows.iter().map(|row| row.get(key).and_then(text)).collect();
        values.is_some_and(|values| values.len() == rows.len())
    };
    let singular = resource.trim_end_matches('s');
    let rank = |key: &String| {
        let name = snake(key);
        match name.as_str() {
            "id" => 0,
            _ if name == format!("{singular}_id") => 1,
            _ if name.ends_with("_id") => 2,
            _ => 3,
        }
    };
    let keys = rows.first()?.as_object()?.keys().filter(|key| is_unique(key));
    keys.min_by_key(|key| rank(key)).map(|key| format!("/{}", escaped(key)))
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn snake(key: &str) -> String {
    let mut name = String::new();
    let mut before = '_';
    for c in key.chars() {
        if c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit()) {
            name.push('_');
        }
        let plain = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        if !(plain == '_' && name.ends_with('_')) {
            name.push(plain);
        }
        before = c;
    }
    name.trim_matches('_').to_owned()
}

/// Names of one table, each given once.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn give(&mut self, wanted: &str) -> String {
        let mut base: String = wanted.chars().take(54).collect();
        if base.is_empty() || !base.starts_with(|c: char| c.is_ascii_lowercase()) {
            base.insert_str(0, "field_");
        }
        if META_COLUMNS.contains(&base.as_str()) {
            base.push_str("_value");
        }
        let free = (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}_{n}") });
        let name = free.into_iter().find(|name| !self.0.contains(name)).unwrap_or(base);
        self.0.insert(name.clone());
        name
    }
}

/// The type that all these values fit.
fn kind(values: &[&Value]) -> String {
    let all = |test: fn(&Value) -> bool| values.iter().all(|value| test(value));
    if all(Value::is_boolean) {
        return "boolean".to_owned();
    }
    if all(|value| value.is_i64() || value.is_u64()) {
        return "integer".to_owned();
    }
    if all(Value::is_number) {
        return "decimal(14,4)".to_owned();
    }
    if !all(Value::is_string) {
        return "json".to_owned();
    }
    let texts = || values.iter().filter_map(|value| value.as_str());
    if texts().all(|text| text.parse::<jiff::Timestamp>().is_ok()) {
        return "datetime".to_owned();
    }
    if texts().all(|text| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()) {
        return "date".to_owned();
    }
    // Twice what was seen, so that the next one fits too.
    let longest = texts().map(|text| text.chars().count()).max().unwrap_or(0) * 2;
    let length = [32, 64, 128, 255].into_iter().find(|length| longest <= *length);
    length.map_or_else(|| "text".to_owned(), |length| format!("text({length})"))
}

/// One table in the making.
struct Draft {
    name: String,
    /// Pointer to the array, for a child.
    from: String,
    columns: Vec<String>,
    datetimes: Vec<(String, String)>,
}

/// Lays values of one place out: columns into the draft, arrays into drafts of their own.
fn draft(
    draft: &mut Draft,
    names: &mut Names,
    values: &[&Value],
    (path, prefix): (&str, &str),
    arrays: &mut Vec<(String, String, Vec<Value>)>,
) {
    let mut fields: BTreeMap<&String, Vec<&Value>> = BTreeMap::new();
    for (key, value) in values.iter().filter_map(|value| value.as_object()).flatten() {
        fields.entry(key).or_default().push(value);
    }
    for (key, found) in fields {
        let found: Vec<&Value> = found.into_iter().filter(|value| !value.is_null()).collect();
        let (at, name) = (format!("{path}/{}", escaped(key)), format!("{prefix}{}", snake(key)));
        match found.first() {
            None => {}
            Some(Value::Object(_)) if found.iter().all(|value| value.is_object()) => {
                self::draft(draft, names, &found, (&at, &format!("{name}_")), arrays);
            }
            Some(Value::Array(_)) if found.iter().all(|value| value.is_array()) => {
                let elements = found.iter().filter_map(|value| value.as_array()).flatten().cloned().collect();
                arrays.push((at, name, elements));
            }
            Some(_) => {
                let (column, kind) = (names.give(&name), kind(&found));
                if kind == "datetime" {
                    draft.datetimes.push((column.clone(), at.clone()));
                }
                draft.columns.push(format!("{column} = {{ from = {at:?}, type = \"{kind}\" }}"));
            }
        }
    }
}

/// The child tables of arrays, at any depth. `holder`: a column that names what holds the array, if there is one.
fn children(
    drafts: &mut Vec<Draft>,
    tables: &mut Names,
    (table, within): (&str, &str),
    arrays: Vec<(String, String, Vec<Value>)>,
    holder: Option<&str>,
) {
    for (at, name, elements) in arrays.into_iter().filter(|(_, _, elements)| !elements.is_empty()) {
        let from = format!("{within}{at}");
        let mut names = Names::default();
        let mut child = Draft {
            name: tables.give(&format!("{table}_{name}")),
            from: from.clone(),
            columns: Vec::new(),
            datetimes: Vec::new(),
        };
        if let Some(pointer) = holder {
            let column = names.give(&format!("of_{}", snake(pointer)));
            child.columns.push(format!("{column} = {{ above = {pointer:?}, type = \"text(128)\" }}"));
        }
        let values: Vec<&Value> = elements.iter().filter(|value| !value.is_null()).collect();
        let mut inner = Vec::new();
        if values.iter().all(|value| value.is_object()) {
            draft(&mut child, &mut names, &values, ("", ""), &mut inner);
        } else if !values.is_empty() {
            let column = names.give("element");
            child.columns.push(format!("{column} = {{ from = \"\", type = \"{}\" }}", kind(&values)));
        }
        let own_id = find_id(&elements, &name);
        drafts.push(child);
        let inner_table = format!("{table}_{name}");
        children(drafts, tables, (inner_table.trim_end_matches('s'), &format!("{from}/*")), inner, own_id.as_deref());
    }
}

/// How the pages hang together, as far as one answer tells, and whether that is a guess.
fn pages(samples: &Samples) -> (String, bool) {
    const CURSORS: [&str; 5] = ["/page/nextCursor", "/nextCursor", "/next_cursor", "/meta/next_cursor", "/paging/next"];
    const FLAGS: [&str; 3] = ["/hasNextPage", "/hasMore", "/has_more"];
    const LINKS: [&str; 3] = ["/links/next", "/_links/next/href", "/next"];
    let at = |places: &'static [&'static str], test: fn(&Value) -> bool| {
        places.iter().find(|place| samples.answer.pointer(place).is_some_and(test))
    };
    if samples.has_link_header {
        return ("{ style = \"next-link\" }".to_owned(), false);
    }
    if let Some(place) = at(&CURSORS, Value::is_string) {
        return (format!("{{ style = \"cursor\", parameter = \"cursor\", next = [\"{place}\"] }}"), true);
    }
    if let Some(place) = at(&FLAGS, Value::is_boolean) {
        return (format!("{{ style = \"has-more-flag\", parameter = \"page\", flag = \"{place}\" }}"), true);
    }
    if let Some(place) = at(&LINKS, Value::is_string) {
        return (format!("{{ style = \"next-link\", at = \"{place}\" }}"), false);
    }
    ("{ style = \"number\", parameter = \"page\" }".to_owned(), true)
}

/// The definition, as text for a configuration file.
pub fn definition(samples: &Samples) -> String {
    let name = &samples.resource;
    let rows = samples.answer.pointer(&samples.items).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut names = Names::default();
    let singular = name.trim_end_matches('s').to_owned();
    let id_column = names.give(&format!("{singular}_id").replace("id_id", "id"));
    let mut top = Draft { name: name.clone(), from: String::new(), columns: Vec::new(), datetimes: Vec::new() };
    let mut arrays = Vec::new();
    let stripped: Vec<Value> = samples
        .documents
        .iter()
        .map(|document| {
            let mut document = document.clone();
            if let Some(members) = document.as_object_mut() {
                members.remove(samples.id.trim_start_matches('/'));
            }
            document
        })
        .collect();
    draft(&mut top, &mut names, &stripped.iter().collect::<Vec<_>>(), ("", ""), &mut arrays);
    let (mut drafts, mut tables) = (Vec::new(), Names::default());
    tables.give(name);
    children(&mut drafts, &mut tables, (&singular, ""), arrays, None);

    let (pages, guessed) = pages(samples);
    let time = top.datetimes.iter().find(|(_, at)| descends(&rows, at));
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing into a string cannot fail.
        writeln!(out, "{text}").unwrap_or_default();
    };
    line(format!("[resource.{name}]\nmedia_type = {:?}\nid         = {:?}\n", samples.media_type, samples.id));
    line(format!("[resource.{name}.list]\npath  = {:?}\nitems = {:?}", samples.path, samples.items));
    if guessed {
        line(
            "# A guess: the answer does not tell how its pages hang together. See `pages` in docs/resources.md."
                .to_owned(),
        );
    }
    line(format!("pages = {pages}"));
    if !samples.parameters.is_empty() {
        let all = samples.parameters.iter().map(|(name, value)| format!("{name:?} = [{value:?}]"));
        line(format!("parameters = {{ {} }}", all.collect::<Vec<_>>().join(", ")));
    }
    if let Some((_, at)) = time {
        line(format!("# The rows of the sample came newest first.\norder = \"newest-first\"\ntime  = {at:?}"));
    }
    if let Some(detail) = &samples.detail {
        line(format!("\n[resource.{name}.detail]\npath = {detail:?}"));
    }
    line(format!("\n[resource.{name}.table]\nid = {id_column:?}"));
    if let Some((column, _)) = time.or(top.datetimes.first().as_ref().copied()) {
        line(format!("time = {column:?}"));
    }
    line(format!("\n[resource.{name}.table.columns]\n{}", top.columns.join("\n")));
    for child in drafts {
        line(format!("\n[resource.{name}.table.children.{}]\nfrom = {:?}", child.name, child.from));
        line(format!("\n[resource.{name}.table.children.{}.columns]\n{}", child.name, child.columns.join("\n")));
    }
    out
}

/// Whether the rows have this time, and none is later than the one before.
fn descends(rows: &[Value], at: &str) -> bool {
    let time = |row: &Value| row.pointer(at)?.as_str()?.parse::<jiff::Timestamp>().ok();
    let times: Option<Vec<jiff::Timestamp>> = rows.iter().map(time).collect();
    times.is_some_and(|times| {
        let differ = times.first() != times.last();
        times.len() >= 3 && differ && times.is_sorted_by(|a, b| a >= b)
    })
}

#[cfg(test)]
mod tests {
    use super::{Samples, definition, find_id, find_items};
    use serde_json::json;

    #[test]
    fn a_sample_becomes_a_definition_that_the_reader_takes() {
        let document = |n: u64| {
            json!({
                "bookId": format!("B{n}"), "version": n, "title": "A longer title than sixteen", "price": 1.5, "sold": n > 1,
                "addedAt": format!("2026-11-0{}T10:00:00Z", 9 - n), "day": "2026-11-01", "publisher": {"name": "P", "City": "X"},
                "authors": [{"id": "a1", "name": "N", "prizes": [{"year": 2020}]}], "tags": ["x", "y"], "none": null, "empty": [],
            })
        };
        let documents: Vec<_> = (1..4).map(document).collect();
        let answer = json!({ "page": {"nextCursor": "c2"}, "books": documents });
        assert_eq!(find_items(&answer).as_deref(), Some("/books"));
        assert_eq!(find_items(&json!([1])).as_deref(), Some(""));
        assert_eq!(find_items(&json!({"result": {"rows": []}})).as_deref(), Some("/result/rows"));
        assert_eq!(find_id(&documents, "books").as_deref(), Some("/bookId"));
        let samples = Samples {
            resource: "books".into(),
            media_type: "application/json".into(),
            path: "/books".into(),
            detail: Some("/books/{id}".into()),
            parameters: vec![("kind".into(), "new".into())],
            answer,
            items: "/books".into(),
            id: "/bookId".into(),
            has_link_header: false,
            documents,
        };
        let text = definition(&samples);
        let table: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let read = crate::catalog::reader::read("books", table["resource"]["books"].as_table().unwrap());
        let read = read.unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
        let columns: Vec<String> =
            read.table.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
        assert_eq!(
            columns,
            [
                "added_at datetime",
                "day date",
                "price decimal(14,4)",
                "publisher_city text(32)",
                "publisher_name text(32)",
                "sold boolean",
                "title text(64)",
                "version_value integer"
            ]
        );
        let children: Vec<String> =
            read.table.children.iter().map(|child| format!("{} {}", child.name, child.from)).collect();
        assert_eq!(
            children,
            ["book_author_prizes /authors/*/prizes", "book_authors /authors", "book_tags /tags"],
            "{text}"
        );
        assert_eq!(read.table.time.as_deref(), Some("added_at"));
        assert!(read.newest_first(&read.list.combinations[0]), "{text}");
        assert!(
            read.coverage
                .look(&crate::domain::Json::parse(samples.documents[0].to_string().as_bytes()).unwrap())
                .is_empty()
        );
    }
}
