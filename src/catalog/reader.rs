//! Reads definitions: the user's additions laid over the built-in ones, and the checks of all but the tables.
//!
//! All problems are collected, so that one look shows them all. The language is described in `docs/resources.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::coverage::Coverage;
use super::definition::{Definition, Detail, List, Order, Pages, Proof, Recent, Refresh, Span, Until, Windows};
use super::fields::{Fields, Problems};
use super::{layout, paging};
use crate::domain::Combination;

/// Parts of the HTTP API that stand where a resource's listing would, and those that its description calls by the same
/// names.
const RESERVED: [&str; 10] =
    ["completeness", "drift", "keys", "parked", "resources", "run", "runs", "shop", "shops", "status"];

/// What a definition may hold.
pub const KEYS: [&str; 7] = ["media_type", "id", "zone", "parent", "list", "detail", "table"];

/// Default of `overlap`: a day, so that rows which a list shows late are still found.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const MARGIN_DEFAULT: Duration = Duration::from_secs(120);
const MEDIA_TYPE_DEFAULT: &str = "application/json";
const DAY: u64 = 86_400;
/// A hundred years, for all that counts days.
const DAYS_MAX: u32 = 36_500;
/// Streams that one definition may make of a shop.
const COMBINATIONS_MAX: usize = 64;

/// Lays `over` upon `base`, table by table; other values replace. Where a table makes one choice among several, another
/// choice takes its place, as the keys of one mean nothing beside those of another.
pub fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
                make_way(key, below, above);
                merge(below, above);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Takes out of `below` what belongs to another choice than that of `above`.
fn make_way(key: &str, below: &mut toml::Table, above: &toml::Table) {
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
/// Every problem found, each naming the resource, the key and the mend.
pub fn read(name: &str, table: &toml::Table) -> Result<Definition, Vec<String>> {
    let (definition, problems) = draft(name, table);
    if problems.is_empty() { Ok(definition) } else { Err(problems) }
}

/// A definition as far as it can be read, and what is wrong with it. Only one without problems may be used; others
/// are there to be looked at further, so that all is told at once. What could not be read is empty.
pub fn draft(name: &str, table: &toml::Table) -> (Definition, Vec<String>) {
    let problems = Problems::default();
    let definition = definition(name, &Fields::new(format!("resource.{name}"), table, &problems));
    (definition, problems.into_inner())
}

fn definition(name: &str, fields: &Fields<'_>) -> Definition {
    layout::identifier(fields, "", name);
    if RESERVED.contains(&name) {
        fields.problem("", format!("/api/v1/{name} means something else; choose another name"));
    }
    let media_type = fields.text("media_type").unwrap_or_else(|| MEDIA_TYPE_DEFAULT.to_owned());
    if !media_type.contains('/') || !media_type.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        fields.problem("media_type", format!("`{media_type}` is no media type; write it like {MEDIA_TYPE_DEFAULT}"));
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
    // A section that is missing is told once, not key by key.
    let (nothing, untold) = (toml::Table::new(), Problems::default());
    let absent = |key: &str| Fields::new(fields.at(key), &nothing, &untold);
    let mend = "it says how the resource is listed: [resource.NAME.list]";
    let list = fields.needed("list", fields.table("list"), mend).unwrap_or_else(|| absent("list"));
    let list = self::list(list, parent.is_some());
    let detail = fields.table("detail").map(|detail| self::detail(detail, parent.is_some()));
    let mend = "it says what the columns are; [resource.NAME.table] may be empty";
    let table = fields.needed("table", fields.table("table"), mend).unwrap_or_else(|| absent("table"));
    let around = layout::Around { combinations: &list.combinations, has_parent: parent.is_some(), zone: zone.as_ref() };
    let table = layout::read(name, table, &around);
    fields.end();
    let id = id.unwrap_or_default();
    let coverage = Coverage::new(&id, &table, zone.is_some());
    Definition { name: name.to_owned(), media_type, id, zone, parent, list, detail, table, coverage }
}

/// What cannot be read is empty; that was told.
fn list(fields: Fields<'_>, has_parent: bool) -> List {
    let path = fields.needed("path", fields.text("path"), "give the path of the list, like path = \"/v1/orders\"");
    let path = path.filter(|path| {
        let holds_id = path.contains("{id}");
        if holds_id {
            fields.problem("path", "holds {id}, which only the path of a detail can; a parent's id is {parent}");
        }
        is_path(&fields, path, has_parent) && !holds_id
    });
    let mend = "give the pointer to the array of rows, like items = \"/orders\", or \"\" where the answer is the array";
    let items = fields.needed("items", fields.pointer_to_one("items", true), mend);
    let time = fields.pointer_to_one("time", false);
    let windows = fields.table("windows").map(self::windows);
    let order = order(&fields, time.is_some() || windows.is_some());
    if order == Order::NewestFirst && windows.is_some() {
        fields.problem("order", "newest-first has no meaning with `windows`; leave it out");
    }
    let choices = choices(&fields);
    let combinations = combinations(&choices);
    let longest = combinations.iter().map(|one| one.to_string().chars().count()).max().unwrap_or(0);
    if longest > Combination::CHARS_MAX {
        let most = Combination::CHARS_MAX;
        fields.problem("parameters", format!("make texts of up to {longest} characters; at most {most} can be kept"));
    }
    let unordered_when = fields.named_texts("unordered_when");
    for (name, values) in &unordered_when {
        let known = choices.get(name);
        for value in values.iter().filter(|value| known.is_none_or(|known| !known.contains(*value))) {
            fields.problem(&format!("unordered_when.{name}"), format!("`{value}` is no value of a parameter `{name}`"));
        }
    }
    let changed_by = fields.texts("changed_by").unwrap_or_default();
    changed_by.iter().for_each(|pointer| fields.is_pointer("changed_by", pointer, false));
    let pages = fields.table("pages").map(paging::pages);
    let pages =
        fields.needed("pages", pages, "say how its pages hang together, like pages = { style = \"none\" }").flatten();
    let (pages, proof) = pages.map_or_else(|| (None, Proof::default()), |(pages, proof)| (Some(pages), proof));
    let ends = fields.table("end").map(|end| paging::ends(&end)).unwrap_or_default();
    let recent = fields.table("recent").map(self::recent);
    if matches!((&pages, &recent), (Some(Pages::Cursor { .. }), Some(Some(_)))) {
        fields
            .problem("recent", "does not go with a cursor, which belongs to what was asked for at first; leave it out");
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

/// Each parameter has one place where its value comes from.
fn clashes(fields: &Fields<'_>, list: &List) {
    let sent = list.sent();
    for (at, (key, name)) in sent.iter().enumerate() {
        if name.is_empty() {
            fields.problem(key, "a parameter needs a name");
        } else if let Some((other, _)) = sent.iter().take(at).find(|(_, earlier)| earlier == name) {
            fields.problem(key, format!("`{name}` is the parameter of `{other}` too, and can have one value only"));
        }
    }
}

fn order(fields: &Fields<'_>, has_time: bool) -> Order {
    match fields.text("order").as_deref() {
        None | Some("unordered") => Order::Unordered,
        Some("newest-first") if has_time => Order::NewestFirst,
        Some("newest-first") => {
            fields.problem("order", "newest-first needs `time`, the pointer to a row's time, to know when to stop");
            Order::NewestFirst
        }
        Some(other) => {
            fields.problem("order", format!("`{other}` is no order; use \"newest-first\" or \"unordered\""));
            Order::Unordered
        }
    }
}

fn choices(fields: &Fields<'_>) -> BTreeMap<String, Vec<String>> {
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

fn windows(fields: Fields<'_>) -> Option<Windows> {
    let [has_day, has_from, has_to] = ["day", "from", "to"].map(|key| fields.has(key));
    let given = (fields.text("day"), fields.text("from"), fields.text("to"));
    let days = fields.number("days");
    if has_day && !has_from && !has_to && days.is_some() {
        fields.problem("days", "goes with `from` and `to`; a `day` is one day long");
    }
    let span = match given {
        (Some(parameter), None, None) => Some(Span::Day { parameter }),
        (None, Some(from), Some(to)) => {
            let days = fields.needed("days", days, "say how many days a stretch has, like days = 31");
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
                // Those that cannot be read were told.
                (true, false, false) | (false, true, true) => {}
                _ => fields.problem("", "needs either `day`, or `from` and `to`: the parameters that choose the days"),
            }
            None
        }
    };
    let reach =
        fields.needed("reach", fields.duration("reach"), "say how far back a whole walk begins: reach = \"90d\"");
    let timezone = fields.zone("timezone").unwrap_or(TimeZone::UTC);
    let undated = fields.flag("undated").unwrap_or(false);
    fields.end();
    let reach_days = u32::try_from(reach.unwrap_or_default().as_secs().div_ceil(DAY)).unwrap_or(u32::MAX);
    if reach_days > DAYS_MAX {
        fields.problem("reach", format!("must be at most {DAYS_MAX}d"));
    }
    Some(Windows { span: span?, reach_days, timezone, undated })
}

fn recent(fields: Fields<'_>) -> Option<Recent> {
    let mend = "give the parameter that takes the minutes";
    let parameter = fields.needed("parameter", fields.text("parameter"), mend);
    let max = fields.needed("max", fields.duration("max"), "say the most it may ask for: max = \"60min\"");
    let margin = fields.duration("margin").unwrap_or(MARGIN_DEFAULT);
    if max.is_some_and(|max| max <= margin) {
        fields.problem("max", format!("must be more than the margin, {} s", margin.as_secs()));
    }
    fields.end();
    Some(Recent { parameter: parameter?, max: max.unwrap_or_default(), margin })
}

fn detail(fields: Fields<'_>, has_parent: bool) -> Detail {
    let path =
        fields.needed("path", fields.text("path"), "give the path of one document, like path = \"/v1/orders/{id}\"");
    let path = path.filter(|path| {
        let holds_id = path.contains("{id}");
        let is_path = is_path(&fields, path, has_parent);
        if !holds_id && is_path {
            fields.problem("path", "must hold {id}, the place of the document's id");
        }
        is_path && holds_id
    });
    let refresh = fields.table("refresh").map(self::refresh);
    let document = fields.pointer_to_one("document", true).unwrap_or_default();
    fields.end();
    Detail { path: path.unwrap_or_default(), document, refresh: refresh.flatten() }
}

fn refresh(fields: Fields<'_>) -> Option<Refresh> {
    let until = fields.table("until").and_then(|until| {
        let at = until.needed("at", until.pointer("at", false), "give the pointer to the value that ends it");
        let values = until.needed("in", until.some_texts("in"), "name the values that end it: in = [\"DELIVERED\"]");
        let all = until.flag("all").unwrap_or_default();
        until.end();
        Some(Until { at: at?, values: values?, all })
    });
    let every = fields.needed("every", fields.duration("every"), "say the first pause: every = \"1h\"");
    if every.is_some_and(|every| every.is_zero()) {
        fields.problem("every", "a pause of nothing reads without end; write it like \"1h\"");
    }
    let mend = "say at what age it ends: max_age = \"30d\"";
    let max_age = fields.needed("max_age", fields.duration("max_age"), mend);
    if every.zip(max_age).is_some_and(|(every, max_age)| every > max_age) {
        fields.problem("max_age", "is less than `every`, so nothing would ever be read again");
    }
    let time = fields.pointer_to_one("time", false);
    fields.end();
    Some(Refresh { until, time, every: every?, max_age: max_age? })
}

/// Whether a text is a path without parameters; placeholders may stand in it.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\');
    let climbs = path.split('/').any(|part| matches!(part, "." | ".."));
    path.starts_with('/') && !path.starts_with("//") && path.chars().all(plain) && !climbs
}

/// Whether it is one for this resource; what is wrong with it is told.
fn is_path(fields: &Fields<'_>, path: &str, has_parent: bool) -> bool {
    let inner = path.replace("{id}", "").replace("{parent}", "");
    let wrong = [
        (!is_plain_path(path)).then(|| {
            format!("`{path}` is no path; it begins with one / and holds no parameters (those go into `parameters`)")
        }),
        inner.contains(['{', '}']).then(|| format!("`{path}` has a placeholder that is neither {{id}} nor {{parent}}")),
        match (path.contains("{parent}"), has_parent) {
            (false, true) => {
                Some("must hold {parent}, the place of the parent's id, as there is a `parent`".to_owned())
            }
            (true, false) => Some("holds {parent}, but no `parent` says whose id that is".to_owned()),
            _ => None,
        },
    ];
    wrong.iter().flatten().for_each(|what| fields.problem("path", what));
    wrong.iter().all(Option::is_none)
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
        "d" => DAY * 1_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

/// All combinations of the parameters' values, in a fixed order.
fn combinations(parameters: &BTreeMap<String, Vec<String>>) -> Vec<Combination> {
    let mut all = vec![Combination::default()];
    for (name, values) in parameters {
        let longer = |combination: &Combination| {
            let combination = combination.clone();
            values.iter().map(move |value| {
                let mut longer = combination.clone();
                longer.0.push((name.clone(), value.clone()));
                longer
            })
        };
        all = all.iter().flat_map(longer).collect();
        // More than that is a problem that was told already.
        all.truncate(COMBINATIONS_MAX);
    }
    all
}
