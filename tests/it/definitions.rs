//! Broken definitions: what `waybill check` says about each, word for word. A message names the line, the key, what
//! is wrong and how to fix it, to a person who has never seen the code.

use crate::support::CATALOG;
use crate::support::configuration::problems;

/// A sound definition with one part exchanged. Each part is on its own line.
pub(crate) fn with(part: &str, broken: &str) -> String {
    let sound = [
        ("limits", "[source.limits]\n\"GET /v1/things\" = \"10/s\"\n\"GET /v1/things/*\" = \"10/s\""),
        ("resource", "[resource.things]"),
        ("id", "id = \"/id\""),
        ("list", "[resource.things.list]"),
        ("path", "path = \"/v1/things\""),
        ("items", "items = \"/things\""),
        ("pages", "pages = { style = \"number\", parameter = \"page\" }"),
        ("more", ""),
        ("detail", "[resource.things.detail]\npath = \"/v1/things/{id}\""),
        ("table", "[resource.things.table]"),
        ("columns", "columns = { name = { from = \"/name\", type = \"text(64)\" } }"),
        ("end", ""),
    ];
    assert!(sound.iter().any(|(name, _)| *name == part), "{part}");
    sound.iter().map(|(name, text)| if *name == part { broken } else { text }).collect::<Vec<_>>().join("\n")
}

pub(crate) fn says(part: &str, broken: &str, expected: &[&str]) {
    assert_eq!(problems(&with(part, broken)), expected, "{part}: {broken}");
}

#[test]
fn a_sound_definition_has_none() {
    assert_eq!(problems(&with("more", "")), [""; 0]);
}

#[test]
fn what_is_missing_or_misspelt() {
    says(
        "id",
        "",
        &["waybill.toml:4: resource.things: `id` is missing; give the pointer to a row's id, like id = \"/orderId\""],
    );
    says("id", "id = 7", &["waybill.toml:5: resource.things.id: must be a text, not 7"]);
    says(
        "id",
        "id = \"orderId\"",
        &[
            "waybill.toml:5: resource.things.id: `orderId` is not a JSON pointer; it must begin with /, like /order/orderId",
        ],
    );
    says(
        "id",
        "id = \"/id\"\nmediatype = \"text/csv\"",
        &["waybill.toml:6: resource.things.mediatype: unknown key; did you mean `media_type`? \
         Known here: media_type, id, zone, parent, list, detail, table"],
    );
    says(
        "more",
        "oder = \"newest-first\"",
        &[
            "waybill.toml:10: resource.things.list.oder: unknown key; did you mean `order`? Known here: path, items, time, windows, \
         order, parameters, unordered_when, changed_by, pages, end, recent, every, harmless, overlap, history",
        ],
    );
    says(
        "items",
        "",
        &["waybill.toml:6: resource.things.list: `items` is missing; give the pointer to the array of rows, \
         like items = \"/orders\", or \"\" where the answer is the array"],
    );
    says(
        "table",
        "[resource.things.tabel]",
        &["waybill.toml:13: resource.things.tabel: unknown key; did you mean `table`? \
         Known here: media_type, id, zone, parent, list, detail, table"],
    );
    says(
        "resource",
        "[resource.Things]\nid = \"/id\"\n[resource.things]",
        &[
            "waybill.toml:4: resource.Things: `Things` is not a plain SQL name; use a-z, 0-9 and _, a letter first, at most 60",
            "waybill.toml:4: resource.Things: `list` is missing; it says how the resource is listed: [resource.NAME.list]",
            "waybill.toml:4: resource.Things: `table` is missing; it says what the columns are; [resource.NAME.table] may be empty",
        ],
    );
}

#[test]
fn what_could_not_be_kept_or_would_end_too_early() {
    let long = "x".repeat(250);
    says(
        "more",
        &format!("parameters = {{ state = [\"open\", \"{long}\"] }}"),
        &["waybill.toml:10: resource.things.list.parameters: combine to up to 256 characters; at most 255 are allowed"],
    );
    says(
        "columns",
        "columns = { is_open = { stream = \"state\", type = \"boolean\" } }\n[resource.things.list.parameters]\n\
         state = [\"true\", \"open\"]",
        &["waybill.toml:14: resource.things.table.columns.is_open.type: the parameter's value `open` does not fit \
         boolean; use text"],
    );
    says(
        "pages",
        "pages = { style = \"cursor\", parameter = \"after\", next = [], size = 9 }",
        &["waybill.toml:9: resource.things.list.pages.next: is empty; name at least one"],
    );
    says(
        "pages",
        "pages = { style = \"cursor\", parameter = \"after\", next = [\"/page/next\", \"/links/*/next\"], size = 9 }",
        &[
            "waybill.toml:9: resource.things.list.pages.next: `/links/*/next` selects many values, but `*` is not allowed here; \
             name one element (/items/0/ean, or /items/-1/ean for the last), or make a child table of the array",
        ],
    );
    says(
        "pages",
        "pages = { style = \"cursor\", parameter = \"c\", next = [\"/n\"], size = 9 }\nrecent = { parameter = \"m\", max = \"1h\" }",
        &[
            "waybill.toml:10: resource.things.list.recent: cannot be combined with a cursor, which belongs to its first \
         request; leave it out",
        ],
    );
    says(
        "more",
        "windows = { from = \"a\", to = \"b\", days = 9999999, reach = \"9999999d\" }",
        &[
            "waybill.toml:10: resource.things.list.windows.days: must be from 1 to 36500",
            "waybill.toml:10: resource.things.list.windows.reach: must be at most 36500d",
        ],
    );
}

#[test]
fn paths_and_their_rules() {
    says(
        "path",
        "path = \"v1/things\"",
        &[
            "waybill.toml:7: resource.things.list.path: `v1/things` is not a path; it begins with one / and has no parameters \
         (those go into `parameters`)",
        ],
    );
    says(
        "path",
        "path = \"/v1/things?state=open\"",
        &[
            "waybill.toml:7: resource.things.list.path: `/v1/things?state=open` is not a path; it begins with one / and has \
         no parameters (those go into `parameters`)",
        ],
    );
    says(
        "path",
        "path = \"/v1/{shop}/things\"",
        &[
            "waybill.toml:7: resource.things.list.path: `/v1/{shop}/things` has a placeholder that is neither {id} nor {parent}",
        ],
    );
    says(
        "path",
        "path = \"/v1/{parent}/things\"",
        &["waybill.toml:7: resource.things.list.path: contains {parent}, but no `parent` says whose id that is"],
    );
    says(
        "detail",
        "[resource.things.detail]\npath = \"/v1/things\"",
        &["waybill.toml:12: resource.things.detail.path: must contain {id}, the place of the document's id"],
    );
    says(
        "path",
        "path = \"/v2/things\"",
        &["waybill.toml:7: resource.things.list.path: no rate rule for GET /v2/things; add it under [source.limits], \
         like \"GET /v2/things\" = \"20/min\""],
    );
    says(
        "limits",
        "[source.limits]\n\"GET /v1/things\" = \"10 a second\"\n",
        &[
            "waybill.toml:2: source.limits.\"GET /v1/things\": `10 a second` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \
         \"7/3min\" or \"none\"",
            "waybill.toml:12: resource.things.detail.path: no rate rule for GET /v1/things/{id}; add it under \
             [source.limits], like \"GET /v1/things/*\" = \"20/min\"",
        ],
    );
}

#[test]
fn pages_and_parameters() {
    says(
        "pages",
        "pages = { style = \"numbers\", parameter = \"page\" }",
        &["waybill.toml:9: resource.things.list.pages.style: `numbers` is not a style; did you mean `number`? \
         There are number, has-more-flag, cursor, offset, next-link, none"],
    );
    says(
        "pages",
        "pages = { style = \"cursor\", parameter = \"cursor\", total = \"/n\" }",
        &["waybill.toml:9: resource.things.list.pages: `next` is missing; give the pointers to the next cursor, \
         like next = [\"/page/nextCursor\"]"],
    );
    says(
        "pages",
        "pages = { style = \"number\", parameter = \"page\", size = 50 }",
        &["waybill.toml:9: resource.things.list.pages.size: unknown key. \
         Known here: style, total, parameter, first"],
    );
    says(
        "pages",
        "pages = { style = \"offset\", parameter = \"skip\", size = 0 }",
        &["waybill.toml:9: resource.things.list.pages.size: must not be 0; give the number of rows of a page"],
    );
    says(
        "more",
        "parameters = { state = [] }",
        &["waybill.toml:10: resource.things.list.parameters.state: has no values; give at least one, or leave it out"],
    );
    says(
        "more",
        "parameters = { state = [\"open\", \"open\"] }",
        &["waybill.toml:10: resource.things.list.parameters.state: names a value twice; its rows would be read twice"],
    );
    says(
        "more",
        "parameters = { state = [\"open\"] }\nunordered_when = { state = \"closed\" }",
        &["waybill.toml:11: resource.things.list.unordered_when.state: `closed` is not a value of a parameter `state`"],
    );
}

#[test]
fn order_days_and_durations() {
    says(
        "more",
        "order = \"newest-first\"",
        &[
            "waybill.toml:10: resource.things.list.order: newest-first needs `time`, the pointer to a row's time, to know when to stop",
        ],
    );
    says(
        "more",
        "order = \"oldest-first\"",
        &[
            "waybill.toml:10: resource.things.list.order: `oldest-first` is not an order; use \"newest-first\" or \"unordered\"",
        ],
    );
    says(
        "more",
        "overlap = \"a day\"",
        &[
            "waybill.toml:10: resource.things.list.overlap: `a day` is not a duration; write it like \"90s\", \"15min\", \"24h\" or \"30d\"",
        ],
    );
    says(
        "more",
        "windows = { from = \"since\", reach = \"90d\" }",
        &["waybill.toml:10: resource.things.list.windows: `to` is missing; it is the parameter for the last day"],
    );
    says(
        "more",
        "windows = { day = \"on\", reach = \"90d\", timezone = \"Amsterdam\" }",
        &[
            "waybill.toml:10: resource.things.list.windows.timezone: `Amsterdam` is not a time zone; write it like \"UTC\" or \"Europe/Amsterdam\"",
        ],
    );
    says(
        "more",
        "recent = { parameter = \"minutes\", max = \"1min\" }",
        &["waybill.toml:10: resource.things.list.recent.max: must be more than the margin, 120 s"],
    );
    says(
        "detail",
        "[resource.things.detail]\npath = \"/v1/things/{id}\"\nrefresh = { every = \"1h\" }",
        &[
            "waybill.toml:13: resource.things.detail.refresh: `max_age` is missing; say at what age the re-reads end: max_age = \"30d\"",
        ],
    );
}

#[test]
fn tables_and_columns() {
    says(
        "columns",
        "columns = { Name = { from = \"/name\", type = \"text\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.Name: `Name` is not a plain SQL name; use a-z, 0-9 and _, a letter first, at most 60",
        ],
    );
    says(
        "columns",
        "columns = { version = { from = \"/version\", type = \"integer\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.version: `version` is the name of a column that Waybill adds; choose another one",
        ],
    );
    says(
        "columns",
        "columns = { name = { from = \"/name\", type = \"varchar(64)\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.name.type: `varchar(64)` is not a type; use text, text(64), datetime, date, \
         integer, decimal(14,4), boolean or json",
        ],
    );
    says(
        "columns",
        "columns = { name = { type = \"text\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.name: `from` is missing; say where its value comes from: from (a JSON \
         pointer), stream (a list parameter), parent = true, or above",
        ],
    );
    says(
        "columns",
        "columns = { state = { stream = \"state\", type = \"text\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.state.stream: `state` is not a list parameter of this resource",
        ],
    );
    says(
        "columns",
        "columns = { tags = { from = \"/tags\", type = \"json\" } }\nindexes = [\"tags\", \"tag\"]",
        &[
            "waybill.toml:15: resource.things.table.indexes: `tag` is not a column of this table",
            "waybill.toml:15: resource.things.table.indexes: `tags` is JSON and cannot have an index; leave it out",
        ],
    );
    says(
        "columns",
        "filters = { limit = \"name\" }\ncolumns = { name = { from = \"/name\", type = \"text\" } }",
        &[
            "waybill.toml:14: resource.things.table.filters.limit: every listing already has a parameter `limit`; choose another name",
        ],
    );
    says(
        "columns",
        "filters = { tag = \"thing_tags.tag\" }",
        &[
            "waybill.toml:14: resource.things.table.filters.tag: `thing_tags.tag` is not a column of this table or its children",
        ],
    );
    says(
        "end",
        "[resource.things.table.children.thing_tags]\nfrom = \"/tags/*\"\ncolumns = { tag = { from = \"\", type = \"text\" } }",
        &[
            "waybill.toml:16: resource.things.table.children.thing_tags.from: ends with `*`; leave that out: each element is a \
         row anyway; an element that is an array fits a json column with from = \"\"",
        ],
    );
    says(
        "columns",
        "columns = { tag = { from = \"/tags/*/name\", type = \"text\" } }",
        &[
            "waybill.toml:14: resource.things.table.columns.tag.from: `/tags/*/name` selects many values, but `*` is not \
         allowed here; name one element (/items/0/ean, or /items/-1/ean for the last), or make a child table of the array",
        ],
    );
    says(
        "end",
        "[resource.things.table.children.thing_tags]\nfrom = \"/tags\"\ncolumns = { thing = { above = \"/id\", up = 2, type = \"text\" } }",
        &[
            "waybill.toml:17: resource.things.table.children.thing_tags.columns.thing.up: must be from 1 to 1, the depth of this array",
        ],
    );
}

#[test]
fn what_a_table_may_not_say_of_its_columns() {
    says(
        "columns",
        "columns = { tag = { from = \"/tag\", type = \"text\" } }\nindexes = [\"tag\", \"tag\"]\ntime = \"tag\"",
        &[
            "waybill.toml:15: resource.things.table.indexes: `tag` is listed twice; leave one out",
            "waybill.toml:16: resource.things.table.time: `tag` is neither a datetime nor a date",
        ],
    );
    says(
        "columns",
        "time = \"document_id\"",
        &["waybill.toml:14: resource.things.table.time: `document_id` is neither a datetime nor a date"],
    );
}

#[test]
fn a_parent_that_is_written_but_not_switched_on() {
    let text = "resources = [\"promotion_products\"]\n[resource.promotions.list]\nevery = \"6h\"\n";
    let reported =
        "waybill.toml:1: resources: `promotion_products` needs the list of `promotions`, which is not there; add it";
    assert_eq!(problems(text), [reported]);
}

#[test]
fn definitions_that_do_not_fit_together() {
    let more = |parent: &str, table: &str| {
        format!(
            "[resource.parts]\nid = \"/id\"\nparent = \"{parent}\"\n[resource.parts.list]\npath = \"/v1/things/{{parent}}/parts\"\n\
             items = \"\"\npages = {{ style = \"none\" }}\n[resource.parts.table]\nname = \"{table}\"\n"
        )
    };
    says(
        "end",
        &more("boxes", "parts"),
        &["waybill.toml:17: resource.parts.parent: `boxes` is not among `resources`; add it there, its list is needed"],
    );
    says(
        "end",
        &more("things", "things"),
        &[
            "waybill.toml:13: resource.things.table.name: `things` is also the table of resource.parts.table.name; choose another name",
        ],
    );
    says(
        "end",
        &more("things", "waybill_parts"),
        &[
            "waybill.toml:23: resource.parts.table.name: names that begin with `waybill_` are reserved; choose another name",
        ],
    );
    says("end", &more("parts", "parts"), &["waybill.toml:17: resource.parts.parent: is the resource itself"]);
    let chain =
        format!("{}{}", more("things", "parts"), more("parts", "screws").replace("resource.parts", "resource.screws"));
    says(
        "end",
        &chain,
        &["waybill.toml:26: resource.screws.parent: `parts` has a parent itself; only one level is supported"],
    );
}

#[test]
fn the_whole_catalog_is_sound() {
    assert_eq!(problems(&format!("resources = {CATALOG:?}")), [""; 0]);
}
