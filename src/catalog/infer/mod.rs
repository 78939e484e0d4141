//! Drafts a definition for an unknown resource from a sample of its rows and documents.
//!
//! Called by `waybill schema infer`. Pure. The result is a text for people to review and edit: it says what was guessed
//! and from what, and contains no value of a document, as values may be personal. Nor does it contain a key that may be
//! data: values under one go to a `json` column, or are left out.

pub mod guess;
mod names;
mod shape;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::catalog::coverage::{is_name, shown};
use crate::domain::Json;
use names::{Names, key, quoted, singular, snake, token};
pub(super) use shape::{Form, Shape};

/// A list, with a few of its rows and documents.
pub struct Sample<'a> {
    pub resource: &'a str,
    pub media_type: &'a str,
    pub id: &'a str,
    pub path: &'a str,
    pub items: &'a str,
    pub parameters: &'a [(String, Vec<String>)],
    pub pages: &'a guess::GuessedPages,
    /// Its path, and the pointer to the document in the answer.
    pub detail: Option<(&'a str, &'a str)>,
    pub rows: &'a [Json<'a>],
    /// The rows themselves where there is no detail.
    pub documents: &'a [Json<'a>],
}

/// Writes the definition.
pub fn definition(sample: &Sample<'_>) -> String {
    let shape = Shape::of(sample.documents);
    let one = singular(&snake(sample.resource));
    let own_id = match snake(sample.id.rsplit('/').next().unwrap_or_default()).as_str() {
        "id" | "" => format!("{one}_id"),
        name => name.to_owned(),
    };
    let id_column = Names::default().column(&one, &own_id);
    let mut tables = Tables { id: sample.id, id_column: &id_column, ..Tables::default() };
    tables.names.take(sample.resource);
    let top = DraftLevel { one: &one, from: String::new(), above: &[] };
    let columns = tables.read(&top, &shape);
    let newest_first = guess::newest_first(sample.rows);
    let time = newest_first.as_ref().and_then(|at| columns.iter().find(|column| column.is_time(at)));
    let is_unzoned = shape.is_unzoned() || Shape::of(sample.rows).is_unzoned();
    let mut text = head(sample, newest_first.as_deref(), is_unzoned);
    // Writing into a string cannot fail, here and below.
    writeln!(text, "\n[resource.{}.table]", sample.resource).unwrap_or_default();
    writeln!(text, "id      = \"{id_column}\"").unwrap_or_default();
    if let Some(time) = time {
        writeln!(text, "time    = \"{0}\"\nindexes = [\"{0}\"]", time.name).unwrap_or_default();
    }
    if !columns.is_empty() {
        writeln!(text, "\n[resource.{}.table.columns]", sample.resource).unwrap_or_default();
        lines(&columns, &mut text);
    }
    for child in &tables.out {
        let at = format!("resource.{}.table.children.{}", sample.resource, child.name);
        writeln!(text, "\n[{at}]\nfrom = {}", quoted(&child.from)).unwrap_or_default();
        if !child.columns.is_empty() {
            writeln!(text, "\n[{at}.columns]").unwrap_or_default();
            lines(&child.columns, &mut text);
        }
    }
    for (why, places) in
        [("Never with a value in the sample", &tables.empty), ("Keys that may be data", &tables.unnamed)]
    {
        if !places.is_empty() {
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            writeln!(text, "\n# {why}, so without a column: {}", places.join(", ")).unwrap_or_default();
        }
    }
    text
}

fn head(sample: &Sample<'_>, newest_first: Option<&str>, is_unzoned: bool) -> String {
    let Sample { resource, .. } = sample;
    let mut text = format!("[resource.{resource}]\nmedia_type = {}\n", quoted(sample.media_type));
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    line(format!("id         = {}", quoted(sample.id)));
    if is_unzoned {
        line(
            "# A guess: times in the sample have no offset. Say whose clock they are of, like \"Europe/Amsterdam\"."
                .to_owned(),
        );
        line("zone       = \"UTC\"".to_owned());
    }
    line(format!("\n[resource.{resource}.list]\npath  = {}\nitems = {}", quoted(sample.path), quoted(sample.items)));
    line(format!("# A guess, from {}.\npages = {}", sample.pages.why, sample.pages.toml));
    if !sample.parameters.is_empty() {
        let values = |values: &[String]| values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
        let each = sample.parameters.iter().map(|(name, all)| format!("{} = [{}]", key(name), values(all)));
        line(format!("parameters = {{ {} }}", each.collect::<Vec<_>>().join(", ")));
    }
    if let Some(at) = newest_first {
        line(
            "# This time goes down from row to row. If no row comes in elsewhere or changes later, `order` saves calls."
                .to_owned(),
        );
        line(format!("# order = \"newest-first\"\ntime  = {}", quoted(at)));
    }
    if let Some((path, document)) = sample.detail {
        line(format!("\n[resource.{resource}.detail]\npath = {}", quoted(path)));
        if !document.is_empty() {
            line(format!("document = {}", quoted(document)));
        }
    }
    text
}

fn lines(columns: &[DraftColumn], text: &mut String) {
    let width = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    for DraftColumn { name, key, pointer, up, kind } in columns {
        let up = if *up > 1 { format!(", up = {up}") } else { String::new() };
        let from = quoted(pointer);
        writeln!(text, "{name:width$} = {{ {key} = {from}{up}, type = \"{kind}\" }}").unwrap_or_default();
    }
}

/// A drafted column.
struct DraftColumn {
    name: String,
    /// `from` or `above`.
    key: &'static str,
    pointer: String,
    up: usize,
    kind: String,
}

impl DraftColumn {
    fn is_time(&self, pointer: &str) -> bool {
        self.pointer == pointer && self.kind == "datetime"
    }
}

/// A drafted child table.
struct DraftTable {
    name: String,
    from: String,
    columns: Vec<DraftColumn>,
}

/// The tables drafted so far.
#[derive(Default)]
struct Tables<'a> {
    id: &'a str,
    id_column: &'a str,
    names: Names,
    out: Vec<DraftTable>,
    /// Places that never had a value.
    empty: BTreeSet<String>,
    /// Places of keys that may be data.
    unnamed: BTreeSet<String>,
}

/// The table being drafted: the document itself, or an array in it.
struct DraftLevel<'a> {
    /// Name of one of its rows.
    one: &'a str,
    /// The pointer to its array, with `*`.
    from: String,
    /// The ids of the ancestors of the array, the nearest last.
    above: &'a [Option<OwnId>],
}

/// What a table has so far.
struct Drafted<'s> {
    names: Names,
    columns: Vec<DraftColumn>,
    /// The arrays in it, by pointer.
    arrays: Vec<(String, &'s Shape)>,
}

impl Tables<'_> {
    /// The columns of a table; its arrays become tables of their own.
    fn read(&mut self, level: &DraftLevel<'_>, shape: &Shape) -> Vec<DraftColumn> {
        let mut drafted = Drafted { names: Names::with([self.id_column]), columns: Vec::new(), arrays: Vec::new() };
        for (up, holder) in level.above.iter().rev().enumerate() {
            let Some(OwnId { column, pointer, kind }) = holder else { continue };
            let (name, pointer, kind) = (drafted.names.column(level.one, column), pointer.clone(), kind.clone());
            drafted.columns.push(DraftColumn { name, key: "above", pointer, up: up + 1, kind });
        }
        let of_elements = match shape.form() {
            Form::Object => {
                self.members(level, shape, "", &mut drafted);
                return self.children(level, shape, drafted);
            }
            Form::Value(kind) => kind,
            Form::Array => "json".to_owned(),
            Form::Nothing => return drafted.columns,
        };
        // The elements are plain values.
        let Drafted { mut names, mut columns, .. } = drafted;
        let name = names.column(level.one, level.one);
        columns.push(DraftColumn { name, key: "from", pointer: String::new(), up: 1, kind: of_elements });
        columns
    }

    /// Adds the members of an object `at` a pointer.
    fn members<'s>(&mut self, level: &DraftLevel<'_>, shape: &'s Shape, at: &str, drafted: &mut Drafted<'s>) {
        for (name, member) in &shape.members {
            if !is_name(name) {
                self.unnamed.insert(format!("{}{}{at}/{}", level.from, star(&level.from), shown(name)));
                continue;
            }
            let pointer = format!("{at}/{}", token(name));
            if level.from.is_empty() && pointer == self.id {
                continue;
            }
            let form = match member.form() {
                // A map from data to values, not a record.
                Form::Object if !member.members.keys().all(|key| is_name(key)) => Form::Value("json".to_owned()),
                form => form,
            };
            match form {
                Form::Nothing => _ = self.empty.insert(format!("{}{}{pointer}", level.from, star(&level.from))),
                Form::Value(kind) => {
                    let name = drafted.names.column(level.one, &snake(&pointer));
                    drafted.columns.push(DraftColumn { name, key: "from", pointer, up: 1, kind });
                }
                Form::Object => self.members(level, member, &pointer, drafted),
                Form::Array => drafted.arrays.push((pointer, member)),
            }
        }
    }

    fn children(&mut self, level: &DraftLevel<'_>, shape: &Shape, drafted: Drafted<'_>) -> Vec<DraftColumn> {
        // The outermost table has the document's id as part of its key.
        let own = if level.from.is_empty() { None } else { own_id(level.one, shape) };
        let above: Vec<_> = level.above.iter().cloned().chain([own]).collect();
        for (pointer, array) in drafted.arrays {
            let from = format!("{}{}{pointer}", level.from, star(&level.from));
            let Some(elements) = array.elements.as_deref().filter(|elements| elements.form() != Form::Nothing) else {
                self.empty.insert(from);
                continue;
            };
            let word = snake(pointer.rsplit('/').next().unwrap_or_default());
            let begins = word.starts_with(&format!("{}_", level.one));
            let table = self.names.take(&if begins { word } else { format!("{}_{word}", level.one) });
            let one = singular(&table);
            // A table comes before those of its own arrays.
            let at = self.out.len();
            self.out.push(DraftTable { name: table.clone(), from: from.clone(), columns: Vec::new() });
            let columns = self.read(&DraftLevel { one: &one, from, above: &above }, elements);
            if let Some(child) = self.out.get_mut(at) {
                child.columns = columns;
            }
        }
        drafted.columns
    }
}

fn star(from: &str) -> &'static str {
    if from.is_empty() { "" } else { "/*" }
}

/// The id of the elements of an array, as a column of the tables within.
#[derive(Clone)]
struct OwnId {
    column: String,
    pointer: String,
    kind: String,
}

fn own_id(one: &str, shape: &Shape) -> Option<OwnId> {
    let ids = shape.members.keys().filter(|name| is_name(name) && shape.is_in_all(name));
    let named = ids.filter(|name| snake(name) == "id" || snake(name).ends_with("_id"));
    // The element's own id is preferred to a reference to something else.
    let name = named.min_by_key(|name| (snake(name) != "id", !one.ends_with(snake(name).trim_end_matches("_id"))))?;
    let Form::Value(kind) = shape.members.get(name)?.form() else { return None };
    let column = if snake(name) == "id" { format!("{one}_id") } else { snake(name) };
    Some(OwnId { column, pointer: format!("/{}", token(name)), kind })
}

#[cfg(test)]
mod tests {
    use super::{Sample, definition, guess};
    use crate::domain::Json;

    /// The definition from documents that are rows themselves.
    fn written(answer: &str) -> String {
        let answer = Json::parse(answer.as_bytes()).unwrap();
        let items = guess::items(&answer).unwrap();
        let Some(Json::Array(rows)) = answer.pointer(&items) else { panic!("no rows at {items}") };
        definition(&Sample {
            resource: "things",
            media_type: "application/json",
            id: &guess::id(rows, "things").unwrap(),
            path: "/things",
            items: &items,
            parameters: &[("status".to_owned(), vec!["A".to_owned(), "B\"\n".to_owned()])],
            pages: &guess::pages(&answer, &items, false),
            detail: None,
            rows,
            documents: rows,
        })
    }

    #[test]
    fn a_hostile_answer_cannot_inject_toml_and_no_data_is_quoted() {
        let text = written(
            r#"{"x\n[admin]\nkey = 1\n#/nextCursor":"c","jan@example.org":[{"a":1},{"a":2}],"x\n[admin]":{"next_cursor":"c"},
            "rows":[{"id":"1","created":"2026-01-02T00:00:00Z","at\n[admin]\nk = 1":null,"by_email":{"piet@example.org":{"n":1}},
                     "0612345678":7,"parts":[{"id ":1,"n":2,"b\n[admin]":null}],"none\u2028[admin]":[],"later":null}]}"#,
        );
        let file: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(file.keys().collect::<Vec<_>>(), ["resource"], "{text}");
        for part in ["admin", "@", "0612345678"] {
            assert!(!text.contains(part), "{part} is in\n{text}");
        }
        let things = file["resource"]["things"].as_table().unwrap();
        assert_eq!(things["table"]["columns"]["by_email"]["type"].as_str(), Some("json"));
        assert!(things["table"]["children"]["thing_parts"]["columns"].get("n").is_some());
        assert_eq!(things["list"]["parameters"]["status"].as_array().unwrap().len(), 2);
        assert!(text.contains("# Never with a value in the sample, so without a column: /later\n"), "{text}");
        assert!(text.contains("# Keys that may be data, so without a column: /parts/*/{key}, /{key}\n"), "{text}");
    }

    #[test]
    fn times_without_an_offset_ask_for_a_zone_and_numbers_get_a_column_that_holds_them() {
        let text = written(
            r#"{"rows":[{"id":"1","modified":"2026-06-30T22:30:00","lat":52.3702157,"tracking":9400110200881234567890},
                        {"id":"2","modified":"2026-06-29 22:30:00","lat":4.8951679,"tracking":1}]}"#,
        );
        let file: toml::Table = toml::from_str(&text).unwrap();
        let things = file["resource"]["things"].as_table().unwrap();
        assert_eq!(things["zone"].as_str(), Some("UTC"), "{text}");
        assert!(text.contains("# A guess: times in the sample have no offset."), "{text}");
        assert_eq!(things["list"]["time"].as_str(), Some("/modified"));
        let columns = things["table"]["columns"].as_table().unwrap();
        let kind = |name: &str| columns[name]["type"].as_str().unwrap();
        assert_eq!([kind("modified"), kind("lat"), kind("tracking")], ["datetime", "decimal(30,10)", "decimal(60,30)"]);
        assert!(!written(r#"{"rows":[{"id":"1","modified":"2026-06-30T22:30:00Z"}]}"#).contains("zone"));
    }
}
