//! Definitions that parse but cannot work are refused: two values for one parameter, intervals of zero, rules that match
//! no call. Errors quote no password and nothing that a terminal would interpret.

use crate::definitions::says;
use crate::support::configuration::problems;
use crate::support::program::Folder;

#[test]
fn two_values_for_one_parameter_are_refused() {
    says(
        "more",
        "parameters = { page = [\"1\"], \"\" = [\"x\"] }",
        &[
            "waybill.toml:9: resource.things.list.pages.parameter: `page` is also the parameter of `parameters.page`, and \
             can have one value only",
            "waybill.toml:10: resource.things.list.parameters.: a parameter needs a name",
        ],
    );
    says(
        "pages",
        "pages = { style = \"offset\", parameter = \"n\", limit = \"n\", size = 5 }",
        &["waybill.toml:9: resource.things.list.pages.limit: `n` is also the parameter of `pages.parameter`, and can \
           have one value only"],
    );
    says(
        "more",
        "windows = { from = \"f\", to = \"f\", days = 3, reach = \"9d\" }\nrecent = { parameter = \"page\", max = \"1h\" }",
        &[
            "waybill.toml:10: resource.things.list.windows.to: `f` is also the parameter of `windows.from`, and can have \
             one value only",
            "waybill.toml:11: resource.things.list.recent.parameter: `page` is also the parameter of `pages.parameter`, \
             and can have one value only",
        ],
    );
}

#[test]
fn a_list_path_with_an_id_or_a_parent_folder_is_refused() {
    says(
        "path",
        "path = \"/v1/things/{id}\"",
        &[
            "waybill.toml:7: resource.things.list.path: contains {id}, which only the path of a detail may; a parent's id \
           is {parent}",
        ],
    );
    says(
        "path",
        "path = \"/v1/../things\"",
        &["waybill.toml:7: resource.things.list.path: `/v1/../things` is not a path; it begins with one / and has no \
           parameters (those go into `parameters`)"],
    );
}

#[test]
fn a_refresh_without_an_interval_or_with_too_short_an_age_is_refused() {
    let refresh =
        |text: &str| format!("[resource.things.detail]\npath = \"/v1/things/{{id}}\"\nrefresh = {{ {text} }}");
    says(
        "detail",
        &refresh("every = \"0s\", max_age = \"9d\""),
        &["waybill.toml:13: resource.things.detail.refresh.every: must not be zero; write it like \"1h\""],
    );
    says(
        "detail",
        &refresh("every = \"30d\", max_age = \"1d\""),
        &["waybill.toml:13: resource.things.detail.refresh.max_age: is less than `every`, so nothing would ever be \
           read again"],
    );
}

#[test]
fn a_filter_name_that_needs_escaping_in_a_url_is_refused() {
    says(
        "table",
        "[resource.things.table]\nfilters = { \"A b\" = \"name\" }",
        &[
            "waybill.toml:14: resource.things.table.filters.A b: a filter needs a plain name: a-z, 0-9 and _, a letter first",
        ],
    );
}

#[test]
fn a_limit_pattern_that_matches_no_path_is_refused() {
    for pattern in ["GET /things/**", "GET /things?x=1", "GET /a b", "GET /a/b*", "GET /things/", "things", "LOOK /a"] {
        let expected = format!(
            "waybill.toml:2: source.limits.\"{pattern}\": write the rule as \"GET /path/*\": a method, and a path whose parts are \
             names or `*`"
        );
        assert_eq!(problems(&format!("[source.limits]\n\"{pattern}\" = \"1/s\"\n")), [expected]);
    }
    for pattern in ["GET /things/*", "GET /things/{id}", "POST /a-b/*/c_d.json"] {
        assert_eq!(problems(&format!("[source.limits]\n\"{pattern}\" = \"1/s\"\n")), [""; 0], "{pattern}");
    }
}

#[test]
fn errors_quote_no_password_and_escape_control_characters() {
    for text in [
        "[source]\ntoken_url = \"admin:canary@api.example.com/token\"\n",
        "[source]\ntoken_url = \"https//admin:canary@api.example.com\"\n",
        "[mysql]\n\"mysql://root:canary@127.0.0.1/waybill\" = \"url\"\n",
        "[mysql]\nurl = \"postgres://root:canary@127.0.0.1/waybill\"\n",
    ] {
        let found = problems(text);
        assert!(!found.is_empty() && !found.concat().contains("canary"), "{found:?}");
    }
    let [error] = problems("resources = [\"a\\u001b[31mred\\nb\"]").try_into().unwrap();
    assert!(error.contains("`a\\u{1b}[31mred\\nb`") && !error.contains(char::is_control), "{error}");
}

/// Neither stops a start: a rule may be for a resource that is switched off for a while.
#[test]
fn check_reports_rules_and_definitions_without_effect() {
    let folder = Folder::bare();
    let text = "[http]\nlisten = \"127.0.0.1:0\"\n[source.limits]\n\"GET /retailer/shipment\" = \"9/min\"\n\
                \"GET /v1/things\" = \"1/s\"\n\"GET /elsewhere\" = \"1/s\"\n\"GET /retailer/offers/export/*\" = \"1/h\"\n\
                [resource.things]\nid = \"/id\"\ntable = {}\n[resource.things.list]\npath = \"/v1/things\"\nitems = \"\"\n\
                pages = { style = \"none\" }\n";
    folder.write("waybill.toml", text);
    let ended = folder.run(&["check", "--offline"]).expect(1);
    let lines: Vec<&str> = ended
        .out
        .lines()
        .filter(|line| !["directory: ", "key: ", "schedule: "].iter().any(|part| line.contains(part)))
        .collect();
    let none = "matches no list or detail of the configured resources";
    assert_eq!(
        lines[2..],
        [
            "ok    resource things: is defined but not among `resources`: it is not synced".to_owned(),
            format!("FAIL  waybill.toml:6: source.limits.\"GET /elsewhere\": {none}."),
            format!(
                "FAIL  waybill.toml:4: source.limits.\"GET /retailer/shipment\": {none}; did you mean `GET /retailer/shipments`?"
            ),
        ],
        "{}",
        ended.out
    );
    assert!(ended.err.contains("2 of 8 checks failed"), "{}", ended.err);
}
