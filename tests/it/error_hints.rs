//! Common mistakes in a configuration: each error says how to fix it, and nothing that only follows from it is reported.

use crate::definitions::with;
use crate::support::configuration::problems;
use crate::support::program::Folder;

/// The reported errors, with `..` for the rest of a list of known names.
fn errors(text: &str) -> Vec<String> {
    let short = |problem: String| {
        let cut = ["Known here: ", "The catalog has "].iter().find_map(|list| problem.split_once(list));
        cut.map_or(problem.clone(), |(start, _)| format!("{start}.."))
    };
    problems(text).into_iter().map(|problem| short(problem.replacen("waybill.toml:", "", 1))).collect()
}

/// An override of one alternative removes what belonged to the built-in one.
#[test]
fn an_override_replaces_the_built_in_alternative() {
    for own in [
        "resources = [\"returns\"]\n[resource.returns.list]\npages = { style = \"none\" }\n",
        "resources = [\"orders\"]\n[resource.orders.table.children.order_items.columns]\n\
         ean = { above = \"/orderId\", type = \"text(64)\" }\n",
        "resources = [\"invoices\"]\n[resource.invoices.list.windows]\nday = \"x\"\nreach = \"9d\"\n",
    ] {
        assert_eq!(errors(own), [""; 0], "{own}");
    }
    // An override of the same alternative changes only its own keys.
    for own in [
        "resources = [\"orders\"]\n[resource.orders.table.children.order_items.columns.ean]\ntype = \"text\"\n",
        "resources = [\"shipments\"]\n[resource.shipments.table.columns]\nfulfilment_method = { from = \"/fm\" }\n",
        "resources = [\"orders\"]\n[resource.orders.list]\nwindows = { day = \"day\", timezone = \"UTC\" }\n",
        "resources = [\"orders\"]\n[resource.orders.list]\npages = { style = \"number\", first = 0 }\n",
        "resources = [\"invoices\"]\n[resource.invoices.list.windows]\nfrom = \"since\"\n",
    ] {
        assert_eq!(errors(own), [""; 0], "{own}");
    }
    assert_eq!(
        errors("resources = [\"shipments\"]\n[resource.shipments.list]\nordr = \"unordered\"\n"),
        ["3: resource.shipments.list.ordr: unknown key; did you mean `order`? .."]
    );
}

/// A conflict of two keys is reported although a third is wrong.
#[test]
fn an_error_hides_no_other_in_its_section() {
    let list = "windows = { day = \"page\", reach = \"soon\" }\nrecent = { parameter = \"page\" }";
    let clash = "`page` is also the parameter of `pages.parameter`, and can have one value only";
    assert_eq!(
        errors(&with("more", list)),
        [
            "10: resource.things.list.windows.reach: `soon` is not a duration; write it like \"90s\", \"15min\", \"24h\" or \
             \"30d\"",
            &format!("10: resource.things.list.windows.day: {clash}"),
            "11: resource.things.list.recent: `max` is missing; say the most it may ask for: max = \"60min\"",
            &format!("11: resource.things.list.recent.parameter: {clash}"),
        ]
    );
    let cursor = "pages = { style = \"cursor\", parameter = \"c\", more = \"/more\" }\nrecent = { parameter = \"m\", max = \"1h\" }";
    assert_eq!(
        errors(&with("pages", cursor)),
        [
            "9: resource.things.list.pages: `next` is missing; give the pointers to the next cursor, like next = \
             [\"/page/nextCursor\"]",
            "10: resource.things.list.recent: cannot be combined with a cursor, which belongs to its first request; leave it out",
        ]
    );
}

#[test]
fn a_key_in_the_wrong_section_is_pointed_to_its_own() {
    assert_eq!(
        errors("[source]\nresources = [\"orders\"]\n[mysql]\nlisten = \"x\"\npassword = \"x\"\n"),
        [
            "2: source.resources: unknown key; it belongs at the top of the file, before the first [section]. ..",
            "4: mysql.listen: unknown key; it belongs in [http]. ..",
            "5: mysql.password: unknown key. ..",
        ]
    );
    assert_eq!(
        errors(&with("id", "id = \"/id\"\nwindows = 5\nrefresh = {}\ncolumns = {}")),
        [
            "6: resource.things.windows: unknown key; it belongs in [resource.things.list]. ..",
            "7: resource.things.refresh: unknown key; it belongs in [resource.things.detail]. ..",
            "8: resource.things.columns: unknown key; it belongs in [resource.things.table]. ..",
        ]
    );
    for (text, expected) in [
        (
            "[resources.things]\nid = \"/id\"\n",
            "1: resources: is the list of resources to sync; a definition goes under [resource.NAME]",
        ),
        (
            "[[resource]]\nid = \"/id\"\n",
            "1: resource: is a section, [resource.NAME]; to choose what to sync, use `resources`",
        ),
        (
            "[resource]\nid = \"/id\"\nlist = { path = \"/x\" }\n",
            "1: resource: the name is missing; write [resource.NAME]",
        ),
        (
            "resources = [\"orders\"]\n[resource.order.table.columns.a]\nfrom = \"/a\"\ntype = \"text\"\n",
            "2: resource.order: is not in the catalog, and lacks the `id` that a definition of your own needs; did you mean \
             [resource.orders]?",
        ),
        (
            "resources = [\"promotion_products\"]\n",
            "1: resources: `promotion_products` needs the list of `promotions`, which is not there; add it",
        ),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn a_similar_name_is_suggested() {
    assert_eq!(
        errors("resources = [\"ordes\", \"\", \"status\", \"thing\"]\n[resource.things]\nid = 5\n")[..4],
        [
            "1: resources: `ordes` is not in the catalog and there is no [resource.ordes]; did you mean `orders`? ..",
            "1: resources: `` is not in the catalog and there is no [resource.]. ..",
            "1: resources: `status` is not in the catalog and there is no [resource.status]. ..",
            "1: resources: `thing` is not in the catalog and there is no [resource.thing]; did you mean `things`? ..",
        ]
    );
}

#[test]
fn a_mistake_in_a_column_is_one_error() {
    let columns = "columns = { a = { from = \"/a\", type = \"text(1024)\" }, b = { from = \"/b\", type = \"decimal(4,14)\" }, \
                   c = { form = \"/b\", type = \"text\" }, d = { from = [\"/a\"], type = \"text\" }, \
                   e = { from = \"/e\", above = \"/e\", type = \"text\" }, f = { from = \"/f\", type = \"text\" } }\nid = \"f\"";
    let at = |rest: &str| format!("14: resource.things.table.columns.{rest}");
    assert_eq!(
        errors(&with("columns", columns)),
        [
            at(
                "a.type: `text(1024)` is not a type; text(n) takes up to n characters, 1 to 1000; use text for longer ones"
            ),
            at(
                "b.type: `decimal(4,14)` is not a type; decimal(d,s) takes d digits, 1 to 60, of which s, 0 to 30, after \
                the point"
            ),
            at("c.form: unknown key; did you mean `from`? .."),
            at("d.from: must be a text, not a list"),
            at("e.above: is only for the columns of a child table; use `from`"),
            at("e: needs exactly one of from, stream, parent and above; leave the others out"),
            at("f: `f` is the id column, which every table has; leave it out here"),
        ]
    );
    assert_eq!(
        errors("resources = [\"orders\"]\n[resource.orders]\ntable = { columns = [] }\n"),
        ["3: resource.orders.table.columns: must be a table, not a list"]
    );
    let named = with("table", "[resource.things.table]\nchildren = { things = { from = \"/a\" } }");
    assert_eq!(
        errors(&named),
        ["14: resource.things.table.children.things: has the name of the table itself; choose another one"]
    );
}

#[test]
fn an_error_quotes_the_wrong_value() {
    let pages =
        "pages = { style = \"offset\", parameter = \"o\", size = 10.0 }\nparameters = { n = [1, 2], m = [[\"a\"]] }";
    assert_eq!(
        errors(&with("pages", pages)),
        [
            "9: resource.things.list.pages.size: must be a whole number, 0 or more, not 10.0",
            "10: resource.things.list.parameters.m: must be a text or a list of texts, not a list",
            "10: resource.things.list.parameters.n: must be a text or a list of texts, not 1",
            "10: resource.things.list.parameters.n: must be a text or a list of texts, not 2",
        ]
    );
    assert_eq!(
        errors("[limits]\nattempts_max = 99999999999999999999\nparked_max = 1e3\n"),
        [
            "2: limits.attempts_max: needs a whole number of 0 or more, not 99999999999999999999",
            "3: limits.parked_max: needs a whole number of 0 or more, not 1e3",
        ]
    );
    assert_eq!(
        errors(&with("more", "windows = { day = \"d\", days = 5, reach = \"9d\" }")),
        ["10: resource.things.list.windows.days: needs `from` and `to`; a `day` is one day long"]
    );
    assert_eq!(
        errors("[source]\nauth = \"oauth\"\napi_key_header = \"X Api Key\"\n"),
        ["2: source.auth: `oauth` is unknown. There are client-credentials, basic, bearer, api-key"]
    );
    for (header, what) in [("X Api Key:", "is not a header name (letters, digits and -)"), ("Host", "is reserved")] {
        let found = errors(&format!("[source]\nauth = \"api-key\"\napi_key_header = \"{header}\"\n"));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("3: source.api_key_header: `{header}` {what}")),
            "{found:?}"
        );
    }
}

#[test]
fn a_file_that_is_not_toml_causes_few_errors() {
    let open = errors("resources = [\"shipments\"\n[mysql]\nurl = \"x\"\na = 1\nb = 2\nc = 3\n");
    assert!(open.len() <= 5 && open.iter().all(|problem| problem.contains(": not TOML: ")), "{open:?}");
    let folder = Folder::bare();
    std::fs::write(folder.path("waybill.toml"), b"a = 1\nb = '\xe9'\n").unwrap();
    let ended = folder.run(&["check", "--offline"]).expect(2);
    assert!(
        ended.err.contains("waybill.toml:2: contains characters that are not UTF-8; save the file as UTF-8"),
        "{}",
        ended.err
    );
    std::fs::create_dir(folder.path("folder.toml")).unwrap();
    let ended = folder.run(&["--config", "folder.toml", "check", "--offline"]).expect(2);
    assert!(ended.err.contains("folder.toml: cannot read the configuration file: Is a directory"), "{}", ended.err);
}
