//! Reads resource definitions: merges the user's with the built-in ones, and checks all but the tables.
//!
//! All problems are collected and reported together. The language is described in `docs/resources.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::coverage::Coverage;
use super::definition::{
    Definition, Detail, List, Order, Pages, Proof, Recent, Refresh, Span, Until, Windows, endpoint_digest,
};
use super::facets::FacetLayout;
use super::toml_fields::{ProblemCollector, TomlFields};
use super::{DefinitionProblem, Problems, page_fields, table_reader};
use crate::domain::ListParams;

/// Names taken by paths of the HTTP API or by schemas of its OpenAPI document.
const RESERVED: [&str; 10] =
    ["completeness", "drift", "keys", "parked", "resources", "run", "runs", "shop", "shops", "status"];

/// The keys of a definition.
pub const KEYS: [&str; 7] = ["media_type", "id", "zone", "parent", "list", "detail", "table"];

/// Default of `overlap`: a day, so that rows that appear late in a list are still found.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const MARGIN_DEFAULT: Duration = Duration::from_secs(120);
const MEDIA_TYPE_DEFAULT: &str = "application/json";
const DAY: u64 = 86_400;
/// A hundred years, the upper bound of everything counted in days.
const DAYS_MAX: u32 = 36_500;
/// Upper bound of the streams per shop of one definition.
const COMBINATIONS_MAX: usize = 64;

/// Merges `over` into `base`, table by table; other values replace. A table that selects one of several styles replaces
/// the style as a whole, as the keys of one mean nothing with another.
pub fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                clear_other_style(key, below, above);
                merge(below, above);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Removes from `below` the keys of another style than the one `above` selects.
fn clear_other_style(key: &str, below: &mut toml::Table, above: &toml::Table) {
    const SOURCES: [&str; 5] = ["from", "stream", "parent", "above", "up"];
    let chooses = |name: &&str| above.get(*name).is_some_and(|value| !value.is_table());
    match key {
        "pages" if above.get("style").is_some_and(|style| below.get("style") != Some(style)) => below.clear(),
        "windows" if ["day", "from", "to"].iter().any(|name| chooses(name) && !below.contains_key(*name)) => {
            below.clear();
        }
        "pages" | "windows" => {}
        // A column.
        _ if SOURCES.iter().any(|name| chooses(name) && !below.contains_key(*name)) => {
            SOURCES.iter().for_each(|name| {
                below.remove(*name);
            });
        }
        _ => {}
    }
}

/// Reads and checks one definition.
///
/// # Errors
/// Every problem found, with its key and the fix.
pub fn read(name: &str, table: &toml::Table) -> Result<Definition, Problems> {
    let (definition, problems) = draft(name, table);
    if problems.is_empty() { Ok(definition) } else { Err(Problems(problems)) }
}

/// Reads as much of a definition as possible, and returns its problems. With problems it may only be checked further,
/// so that all are reported at once; the parts that could not be read are empty.
pub fn draft(name: &str, table: &toml::Table) -> (Definition, Vec<DefinitionProblem>) {
    let problems = ProblemCollector::default();
    let definition = definition(name, &TomlFields::new(format!("resource.{name}"), table, &problems));
    (definition, problems.into_inner())
}

fn definition(name: &str, fields: &TomlFields<'_>) -> Definition {
    table_reader::identifier(fields, "", name);
    if RESERVED.contains(&name) {
        fields.problem("", format!("/api/v1/{name} is another endpoint; choose another name"));
    }
    let media_type = fields.text("media_type").unwrap_or_else(|| MEDIA_TYPE_DEFAULT.to_owned());
    if !media_type.contains('/') || !media_type.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        fields.problem("media_type", format!("`{media_type}` is not a media type; write it like {MEDIA_TYPE_DEFAULT}"));
    }
    let id = fields.needed(
        "id",
        fields.pointer_to_one("id", false),
        "give the pointer to a row's id, like id = \"/orderId\"",
    );
    let zone = fields.zone("zone");
    let parent = fields.text("parent");
    if parent.as_deref() == Some(name) {
        fields.problem("parent", "is the resource itself");
    }
    // A missing section is reported once, not key by key.
    let (nothing, discarded) = (toml::Table::new(), ProblemCollector::default());
    let absent = |key: &str| TomlFields::new(fields.at(key), &nothing, &discarded);
    let hint = "it says how the resource is listed: [resource.NAME.list]";
    let list = fields.needed("list", fields.table("list"), hint).unwrap_or_else(|| absent("list"));
    let list = self::list(list, parent.is_some());
    let mut detail = fields.table("detail").map(|detail| self::detail(detail, parent.is_some()));
    let hint = "it says what the columns are; [resource.NAME.table] may be empty";
    let table = fields.needed("table", fields.table("table"), hint).unwrap_or_else(|| absent("table"));
    let around =
        table_reader::Around { combinations: &list.combinations, has_parent: parent.is_some(), zone: zone.as_ref() };
    let table = table_reader::read(name, table, &around);
    fields.end();
    let id = id.unwrap_or_default();
    if let Some(detail) = &mut detail {
        detail.endpoint_digest = endpoint_digest(&detail.path, &media_type, &id);
    }
    let coverage = Coverage::new(&id, &table, zone.is_some());
    let facets = FacetLayout::new(&table);
    let name = name.to_owned();
    Definition { name, media_type, id, zone, parent, list, detail, table, coverage, facets, has_facets: true }
}

/// Parts that cannot be read are reported and left empty.
fn list(fields: TomlFields<'_>, has_parent: bool) -> List {
    let path = fields.needed("path", fields.text("path"), "give the path of the list, like path = \"/v1/orders\"");
    let path = path.filter(|path| {
        let holds_id = path.contains("{id}");
        if holds_id {
            fields.problem("path", "contains {id}, which only the path of a detail may; a parent's id is {parent}");
        }
        is_path(&fields, path, has_parent) && !holds_id
    });
    let hint = "give the pointer to the array of rows, like items = \"/orders\", or \"\" where the answer is the array";
    let items = fields.needed("items", fields.pointer_to_one("items", true), hint);
    let time = fields.pointer_to_one("time", false);
    let windows = fields.table("windows").map(self::windows);
    let order = order(&fields, time.is_some() || windows.is_some());
    if order == Order::NewestFirst && windows.is_some() {
        fields.problem("order", "newest-first has no meaning with `windows`; leave it out");
    }
    let choices = choices(&fields);
    let combinations = combinations(&choices);
    let longest = combinations.iter().map(|one| one.to_string().chars().count()).max().unwrap_or(0);
    if longest > ListParams::CHARS_MAX {
        let most = ListParams::CHARS_MAX;
        fields.problem("parameters", format!("combine to up to {longest} characters; at most {most} are allowed"));
    }
    let unordered_when = fields.named_texts("unordered_when");
    for (name, values) in &unordered_when {
        let known = choices.get(name);
        for value in values.iter().filter(|value| known.is_none_or(|known| !known.contains(*value))) {
            fields.problem(
                &format!("unordered_when.{name}"),
                format!("`{value}` is not a value of a parameter `{name}`"),
            );
        }
    }
    let changed_by = fields.texts("changed_by").unwrap_or_default();
    changed_by.iter().for_each(|pointer| fields.is_pointer("changed_by", pointer, false));
    let pages = fields.table("pages").map(page_fields::pages);
    let pages = fields.needed("pages", pages, "say how the list is paged, like pages = { style = \"none\" }").flatten();
    let (pages, proof) = pages.map_or_else(|| (None, Proof::default()), |(pages, proof)| (Some(pages), proof));
    let ends = fields.table("end").map(|end| page_fields::ends(&end)).unwrap_or_default();
    let recent = fields.table("recent").map(self::recent);
    let keeps_the_first_query = pages.as_ref().is_some_and(|pages| pages.style().keeps_the_first_query());
    if keeps_the_first_query && matches!(recent, Some(Some(_))) {
        fields.problem("recent", "cannot be combined with a cursor, which belongs to its first request; leave it out");
    }
    let list = List {
        path: path.unwrap_or_default(),
        items: items.unwrap_or_default(),
        order,
        unordered_when,
        pages: pages.unwrap_or(Pages::None),
        proof,
        ends,
        windows: windows.flatten(),
        recent: recent.flatten(),
        combinations,
        time,
        changed_by,
        every: fields.duration("every"),
        harmless: fields.texts("harmless").unwrap_or_default(),
        overlap: fields.duration("overlap").unwrap_or(OVERLAP_DEFAULT),
        history: fields.duration("history"),
    };
    clashes(&fields, &list);
    fields.end();
    list
}

/// Reports parameters that two keys would set.
fn clashes(fields: &TomlFields<'_>, list: &List) {
    let sent = list.sent();
    for (at, (key, name)) in sent.iter().enumerate() {
        if name.is_empty() {
            fields.problem(key, "a parameter needs a name");
        } else if let Some((other, _)) = sent.iter().take(at).find(|(_, earlier)| earlier == name) {
            fields.problem(key, format!("`{name}` is also the parameter of `{other}`, and can have one value only"));
        }
    }
}

fn order(fields: &TomlFields<'_>, has_time: bool) -> Order {
    match fields.text("order").as_deref() {
        None | Some("unordered") => Order::Unordered,
        Some("newest-first") if has_time => Order::NewestFirst,
        Some("newest-first") => {
            fields.problem("order", "newest-first needs `time`, the pointer to a row's time, to know when to stop");
            Order::NewestFirst
        }
        Some(other) => {
            fields.problem("order", format!("`{other}` is not an order; use \"newest-first\" or \"unordered\""));
            Order::Unordered
        }
    }
}

fn choices(fields: &TomlFields<'_>) -> BTreeMap<String, Vec<String>> {
    let choices: BTreeMap<String, Vec<String>> = fields.named_texts("parameters").into_iter().collect();
    let mut all = 1_usize;
    for (parameter, values) in &choices {
        let at = format!("parameters.{parameter}");
        if values.is_empty() {
            fields.problem(&at, "has no values; give at least one, or leave it out");
        }
        if values.iter().enumerate().any(|(at, value)| values.iter().take(at).any(|other| other == value)) {
            fields.problem(&at, "names a value twice; its rows would be read twice");
        }
        all = all.saturating_mul(values.len().max(1));
    }
    if all > COMBINATIONS_MAX {
        fields.problem("parameters", format!("make {all} combinations; at most {COMBINATIONS_MAX} can be walked"));
    }
    choices
}

fn windows(fields: TomlFields<'_>) -> Option<Windows> {
    let [has_day, has_from, has_to] = ["day", "from", "to"].map(|key| fields.has(key));
    let given = (fields.text("day"), fields.text("from"), fields.text("to"));
    let days = fields.number("days");
    if has_day && !has_from && !has_to && days.is_some() {
        fields.problem("days", "needs `from` and `to`; a `day` is one day long");
    }
    let span = match given {
        (Some(parameter), None, None) => Some(Span::Day { parameter }),
        (None, Some(from), Some(to)) => {
            let days = fields.needed("days", days, "say how many days one window has, like days = 31");
            let fit = days.and_then(|days| u32::try_from(days).ok()).filter(|days| (1..=DAYS_MAX).contains(days));
            if days.is_some() && fit.is_none() {
                fields.problem("days", format!("must be from 1 to {DAYS_MAX}"));
            }
            Some(Span::Days { from, to, days: fit.unwrap_or_default() })
        }
        _ => {
            match (has_day, has_from, has_to) {
                (false, true, false) => fields.problem("", "`to` is missing; it is the parameter for the last day"),
                (false, false, true) => fields.problem("", "`from` is missing; it is the parameter for the first day"),
                // Present but unreadable: already reported.
                (true, false, false) | (false, true, true) => {}
                _ => fields.problem("", "needs either `day`, or `from` and `to`: the parameters that choose the days"),
            }
            None
        }
    };
    let reach =
        fields.needed("reach", fields.duration("reach"), "say how far back a full walk begins: reach = \"90d\"");
    let timezone = fields.zone("timezone").unwrap_or(TimeZone::UTC);
    let undated = fields.flag("undated").unwrap_or(false);
    fields.end();
    let reach_days = u32::try_from(reach.unwrap_or_default().as_secs().div_ceil(DAY)).unwrap_or(u32::MAX);
    if reach_days > DAYS_MAX {
        fields.problem("reach", format!("must be at most {DAYS_MAX}d"));
    }
    Some(Windows { span: span?, reach_days, timezone, undated })
}

fn recent(fields: TomlFields<'_>) -> Option<Recent> {
    let hint = "give the parameter that takes the minutes";
    let parameter = fields.needed("parameter", fields.text("parameter"), hint);
    let max = fields.needed("max", fields.duration("max"), "say the most it may ask for: max = \"60min\"");
    let margin = fields.duration("margin").unwrap_or(MARGIN_DEFAULT);
    if max.is_some_and(|max| max <= margin) {
        fields.problem("max", format!("must be more than the margin, {} s", margin.as_secs()));
    }
    fields.end();
    Some(Recent { parameter: parameter?, max: max.unwrap_or_default(), margin })
}

fn detail(fields: TomlFields<'_>, has_parent: bool) -> Detail {
    let path =
        fields.needed("path", fields.text("path"), "give the path of one document, like path = \"/v1/orders/{id}\"");
    let path = path.filter(|path| {
        let holds_id = path.contains("{id}");
        let is_path = is_path(&fields, path, has_parent);
        if !holds_id && is_path {
            fields.problem("path", "must contain {id}, the place of the document's id");
        }
        is_path && holds_id
    });
    let refresh = fields.table("refresh").map(self::refresh);
    let document = fields.pointer_to_one("document", true).unwrap_or_default();
    fields.end();
    Detail { path: path.unwrap_or_default(), document, refresh: refresh.flatten(), endpoint_digest: 0 }
}

fn refresh(fields: TomlFields<'_>) -> Option<Refresh> {
    let until = fields.table("until").and_then(|until| {
        let at = until.needed("at", until.pointer("at", false), "give the pointer to the value that ends the re-reads");
        let values = until.needed("in", until.some_texts("in"), "name the final values: in = [\"DELIVERED\"]");
        let all = until.flag("all").unwrap_or_default();
        until.end();
        Some(Until { at: at?, values: values?, all })
    });
    let every = fields.needed("every", fields.duration("every"), "say the first pause: every = \"1h\"");
    if every.is_some_and(|every| every.is_zero()) {
        fields.problem("every", "must not be zero; write it like \"1h\"");
    }
    let hint = "say at what age the re-reads end: max_age = \"30d\"";
    let max_age = fields.needed("max_age", fields.duration("max_age"), hint);
    if every.zip(max_age).is_some_and(|(every, max_age)| every > max_age) {
        fields.problem("max_age", "is less than `every`, so nothing would ever be read again");
    }
    let time = fields.pointer_to_one("time", false);
    fields.end();
    Some(Refresh { until, time, every: every?, max_age: max_age? })
}

/// Whether a text is a path without query parameters. Placeholders are allowed.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\');
    let climbs = path.split('/').any(|part| matches!(part, "." | ".."));
    path.starts_with('/') && !path.starts_with("//") && path.chars().all(plain) && !climbs
}

/// Whether it is a valid path for this resource; reports what is wrong.
fn is_path(fields: &TomlFields<'_>, path: &str, has_parent: bool) -> bool {
    let inner = path.replace("{id}", "").replace("{parent}", "");
    let wrong = [
        (!is_plain_path(path)).then(|| {
            format!("`{path}` is not a path; it begins with one / and has no parameters (those go into `parameters`)")
        }),
        inner.contains(['{', '}']).then(|| format!("`{path}` has a placeholder that is neither {{id}} nor {{parent}}")),
        match (path.contains("{parent}"), has_parent) {
            (false, true) => {
                Some("must contain {parent}, the place of the parent's id, as there is a `parent`".to_owned())
            }
            (true, false) => Some("contains {parent}, but no `parent` says whose id that is".to_owned()),
            _ => None,
        },
    ];
    wrong.iter().flatten().for_each(|what| fields.problem("path", what));
    wrong.iter().all(Option::is_none)
}

/// All combinations of the parameters' values, in a fixed order.
fn combinations(parameters: &BTreeMap<String, Vec<String>>) -> Vec<ListParams> {
    let mut all = vec![ListParams::default()];
    for (name, values) in parameters {
        let longer = |combination: &ListParams| {
            let combination = combination.clone();
            values.iter().map(move |value| {
                let mut longer = combination.clone();
                longer.0.push((name.clone(), value.clone()));
                longer
            })
        };
        all = all.iter().flat_map(longer).collect();
        // A larger product was already reported.
        all.truncate(COMBINATIONS_MAX);
    }
    all
}
