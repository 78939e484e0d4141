//! Configuration: what it refuses, with which words, and what it never shows.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret as _;
use waybill::config::{Config, ConfigError, MasterKeySource};

use crate::support::configuration::{load, problems};

#[test]
fn no_file_is_a_configuration() {
    let config = Config::load(None, &BTreeMap::new()).unwrap();
    assert_eq!(config.file, None);
    assert_eq!(config.data_dir, Path::new("data"));
    assert!(matches!(&config.master_key, MasterKeySource::File(file) if file == Path::new("data.key")));
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.mysql_url.is_none() && config.admin_key.is_none());
    assert_eq!(config.source.base_url.as_str(), "https://api.bol.com/");
    assert_eq!(config.definitions.len(), 1);
    assert_eq!(config.limits.outbox_max_bytes, 256 << 20);
    assert_eq!(config.limits.parked_max, 10_000);
}

#[test]
fn the_example_is_the_defaults() {
    let mut example = Config::load(Some(Path::new("config.example.toml")), &BTreeMap::new()).unwrap();
    let defaults = Config::load(None, &BTreeMap::new()).unwrap();
    example.file = None;
    example.log.level_is_set = false;
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));
}

#[test]
fn a_named_file_must_be_there() {
    let error = Config::load(Some(Path::new("no/such.toml")), &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.starts_with("no/such.toml: cannot read the configuration file: "), "{error}");
    let variables = BTreeMap::from([("WAYBILL_CONFIG".to_owned(), "also/missing.toml".to_owned())]);
    assert!(matches!(Config::load(None, &variables), Err(ConfigError::File { .. })));
}

#[test]
fn all_problems_are_reported_with_line_and_fix() {
    let text = r#"
data_dri = "data"
resources = ["shipments"]

[http]
listen = "everywhere"
listne = 1

[htpp]

[source]
base_url = "http://api.example.com"
in_flight_max = 0

[source.limits]
"retailer" = "25/min"
"GET /retailer/shipments" = "25 a minute"

[schedule]
sync = "every day"
reconcile = "0 99 3 * * *"

[log]
format = "xml"
"#;
    let expected = [
        "waybill.toml:2: data_dri: unknown key; did you mean `data_dir`? Known here: data_dir, master_key_file, resources, http, mysql, source, schedule, limits, alerts, log, resource",
        "waybill.toml:7: http.listne: unknown key; did you mean `listen`? Known here: listen, behind_proxy, trusted_proxies, metrics_listen",
        "waybill.toml:9: htpp: unknown key; did you mean `http`? Known here: data_dir, master_key_file, resources, http, mysql, source, schedule, limits, alerts, log, resource",
        "waybill.toml:6: http.listen: `everywhere` is not an address with a port; write it like \"127.0.0.1:8080\"",
        "waybill.toml:24: log.format: `xml` is not a format; use \"text\" or \"json\"",
        "waybill.toml:20: schedule.sync: `every day` has 2 fields; a schedule has six: second minute hour day month weekday, like \"0 */15 * * * *\"",
        "waybill.toml:12: source.base_url: `http://api.example.com` would send secrets in clear text; use https (http only on loopback)",
        "waybill.toml:13: source.in_flight_max: 0 is out of range; use 1 to 10000",
        "waybill.toml:17: source.limits.\"GET /retailer/shipments\": `25 a minute` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \"7/3min\" or \"none\"",
        "waybill.toml:16: source.limits.\"retailer\": write the rule as \"GET /path/*\": a method, and a path whose parts are names or `*`",
    ];
    let found = problems(text);
    for line in expected {
        assert!(found.iter().any(|problem| problem == line), "missing: {line}\nfound:\n{}", found.join("\n"));
    }
    assert!(
        found.iter().any(|problem| problem.starts_with("waybill.toml:21: schedule.reconcile: `0 99 3 * * *` is no"))
    );
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn wrong_types_name_what_is_needed() {
    for (text, want) in [
        ("data_dir = 1", "waybill.toml:1: data_dir: needs text in quotes, not 1"),
        ("limits.drain = 20", "waybill.toml:1: limits.drain: needs text in quotes, not 20; write it like \"20s\""),
        (
            "http.listen = 8080",
            "waybill.toml:1: http.listen: needs text in quotes, not 8080; write it like \"127.0.0.1:8080\"",
        ),
        (
            "resources = \"shipments\"",
            "waybill.toml:1: resources: needs an array of texts, like [\"a\", \"b\"], not string",
        ),
        ("[http]\nbehind_proxy = \"yes\"", "waybill.toml:2: http.behind_proxy: needs true or false, not string"),
        ("http = 8080", "waybill.toml:1: http: is a section; write it as [http]"),
        (
            "[limits]\noutbox_max_bytes = \"1 MB\"",
            "waybill.toml:2: limits.outbox_max_bytes: `1 MB` is not a size; write it like \"256MiB\" or in bytes",
        ),
        (
            "[limits]\ndrain = \"soon\"",
            "waybill.toml:2: limits.drain: `soon` is not a duration up to 10 min; write it like \"20s\"",
        ),
        ("[limits]\nparked_max = 0", "waybill.toml:2: limits.parked_max: 0 is out of range; use 1 to 10000000"),
        ("resources = []", "waybill.toml:1: resources: is empty; name at least one resource to sync"),
        (
            "resources = [\"shipments\", \"shipments\"]",
            "waybill.toml:1: resources: `shipments` is listed twice; leave one out",
        ),
        ("data_dir = \"..\"", "waybill.toml:1: data_dir: `..` cannot be a data directory; name one like \"data\""),
    ] {
        assert_eq!(problems(text), [want]);
    }
}

#[test]
fn broken_toml_names_the_line_and_does_not_quote_it() {
    let found = problems("[mysql]\nurl = \"mysql://root:geheim@db/x\n");
    assert!(found[0].starts_with("waybill.toml:2: not TOML: "), "{found:?}");
    assert!(!found.join(" ").contains("geheim"));
}

#[test]
fn definitions_are_checked_with_their_line() {
    let found = problems("resources = [\"shipments\", \"order\"]\n");
    assert_eq!(
        found,
        [
            "waybill.toml:1: resources: `order` is not in the catalog and there is no [resource.order]; did you mean `orders`? \
          The catalog has inventory, invoice_requests, invoices, offers, orders, promotion_products, promotions, \
          replenishments, returns, shipments"
        ]
    );
    let found = problems("[resource.shipments.list]\norder = \"newest-first\"\npath = \"retailer/shipments\"\n");
    assert!(
        found[0].starts_with("waybill.toml:3: resource.shipments.list.path: `retailer/shipments` is not a path"),
        "{found:?}"
    );
    let own = "media_type = \"a/b\"\nid = \"/id\"\nlist = { path = \"/x\", items = \"/x\", pages = { style = \"none\" } }\ntable = {}\n";
    let found = problems(&format!("[resource.runs]\n{own}"));
    assert_eq!(
        found,
        [
            "waybill.toml:1: resource.runs: /api/v1/runs is another endpoint; choose another name",
            "waybill.toml:4: resource.runs.list.path: no rate rule for GET /x; add it under [source.limits], \
             like \"GET /x\" = \"20/min\""
        ]
    );
    // Not switched on, and still checked: the misspelt name shows itself.
    let found = problems("[resource.shipmnets.list]\norder = \"unordered\"\n");
    assert!(found[0].starts_with("waybill.toml:1: resource.shipmnets: "), "{found:?}");
}

#[test]
fn the_environment_lies_over_the_file() {
    let config = load(
        "data_dir = \"a\"\n[http]\nlisten = \"127.0.0.1:1\"\n",
        &[
            ("WAYBILL_DATA_DIR", "b"),
            ("WAYBILL_HTTP_LISTEN", "0.0.0.0:9000"),
            ("WAYBILL_HTTP_BEHIND_PROXY", "true"),
            ("WAYBILL_RESOURCES", " shipments ,"),
            ("WAYBILL_SOURCE_BASE_URL", "http://127.0.0.1:9999"),
            ("WAYBILL_SOURCE_TOKEN_URL", "http://127.0.0.1:9999/token"),
            ("WAYBILL_SOURCE_LIMITS", "GET /retailer/shipments=7/3min, GET /retailer/shipments/*=none"),
            ("WAYBILL_SCHEDULE_SYNC", "*/5 * * * *"),
            ("WAYBILL_LIMITS_OUTBOX_MAX_BYTES", "1GiB"),
            ("WAYBILL_SOURCE_CALLS_PER_SECOND", "20"),
            ("WAYBILL_SOURCE_LOGINS_PER_SECOND", "50"),
            ("WAYBILL_MYSQL_URL", ""),
            ("WAYBILL_TEST_MYSQL", "mysql://root@127.0.0.1:3307"),
        ],
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("b"));
    assert_eq!(config.listen.to_string(), "0.0.0.0:9000");
    assert_eq!(config.schedule.sync.expression(), "0 */5 * * * *");
    assert_eq!(config.limits.outbox_max_bytes, 1 << 30);
    assert_eq!(config.source.calls_per_second, Some(20));
    assert_eq!(config.source.logins_per_second, 50);
    assert!(config.mysql_url.is_none());
    let rule = |path: &str| config.rules.find("GET", path).unwrap().limit.map(|limit| limit.to_string());
    assert_eq!(rule("/retailer/shipments").as_deref(), Some("7/3min"));
    assert_eq!(rule("/retailer/shipments/1"), None);
    assert_eq!(rule("/retailer/orders").as_deref(), Some("25/min"), "built-in rules stay");
}

#[test]
fn variables_have_their_own_problems() {
    for (name, value, want) in [
        (
            "WAYBILL_HTTP_LISTN",
            "x",
            "WAYBILL_HTTP_LISTN: there is no such variable; did you mean `WAYBILL_HTTP_LISTEN`?",
        ),
        ("WAYBILL_ADMINKEY", "x", "WAYBILL_ADMINKEY: there is no such variable; did you mean `WAYBILL_ADMIN_KEY`?"),
        ("WAYBILL_HTTP_BEHIND_PROXY", "yes", "WAYBILL_HTTP_BEHIND_PROXY: needs true or false"),
        ("WAYBILL_LIMITS_ATTEMPTS_MAX", "-1", "WAYBILL_LIMITS_ATTEMPTS_MAX: needs a whole number from 0"),
        (
            "WAYBILL_HTTP_LISTEN",
            "0.0.0.0:80",
            "WAYBILL_HTTP_LISTEN: 0.0.0.0:80 can be reached from outside, in clear text; listen on 127.0.0.1, or put a TLS proxy in front and set http.behind_proxy = true",
        ),
        (
            "WAYBILL_MASTER_KEY",
            "geheim",
            "WAYBILL_MASTER_KEY: is not 32 bytes in base64; give the key that the data directory was made with, which no \
             other key opens. For a new data directory make one with: head -c 32 /dev/urandom | base64",
        ),
        (
            "WAYBILL_SOURCE_LIMITS",
            "GET /x=often",
            "WAYBILL_SOURCE_LIMITS: \"GET /x\": `often` is not a limit; write it like \"25/min\", \"50/s\", \"9/h\", \"7/3min\" or \"none\"",
        ),
    ] {
        assert_eq!(load("", &[(name, value)]).unwrap_err(), [want]);
    }
}

#[test]
fn secrets_show_in_no_debug_text_and_no_problem() {
    let key = "Z2VoZWltZ2VoZWltZ2VoZWltZ2VoZWltZ2VoZWltISE=";
    let config = load(
        "[mysql]\nurl = \"mysql://root:geheim@db.example.com/waybill?require_ssl=true\"\n",
        &[("WAYBILL_MASTER_KEY", key), ("WAYBILL_ADMIN_KEY", "geheime-sleutel-8Qm2Zr7Xw4Lp9Tn5")],
    )
    .unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("geheim") && !shown.contains(key), "{shown}");
    assert_eq!(
        config.mysql_url.as_ref().unwrap().expose_secret(),
        "mysql://root:geheim@db.example.com/waybill?require_ssl=true"
    );
    assert!(matches!(&config.master_key, MasterKeySource::Env(secret) if secret.expose_secret() == key));
    for url in ["postgres://u:geheim@h/d", "mysql://u:geheim@h", "mysql://u:geheim@h:x/d", "geheim"] {
        let found = load("", &[("WAYBILL_MYSQL_URL", url), ("WAYBILL_ADMIN_KEY", "geheim")]).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(!found.join(" ").contains("geheim"), "{found:?}");
    }
}

#[test]
fn the_readme_adds_a_resource_that_loads() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let begins = "    resources = [\"shipments\", \"sales\"]";
    let block: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != begins)
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(str::trim_start)
        .collect();
    let config = load(&block.join("\n"), &[]).unwrap();
    assert_eq!(config.definitions.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["shipments", "sales"]);
}

#[test]
fn each_example_configuration_loads() {
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        let found = problems(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(found, [""; 0], "{}", path.display());
    }
}

#[test]
fn how_calls_show_whose_they_are_is_checked() {
    let source = |text: &str| problems(&format!("[source]\n{text}"));
    let elsewhere = |text: &str| source(&format!("{text}\nbase_url = \"https://api.example.com\""));
    assert_eq!(elsewhere("auth = \"bearer\""), [""; 0]);
    assert_eq!(elsewhere("auth = \"api-key\"\napi_key_header = \"X-Api-Key\""), [""; 0]);
    assert_eq!(
        source("auth = \"apikey\""),
        ["waybill.toml:2: source.auth: `apikey` is unknown; did you mean `api-key`? \
          There are client-credentials, basic, bearer, api-key"]
    );
    assert_eq!(
        source("auth = \"api-key\""),
        ["waybill.toml:1: source.api_key_header: auth = \"api-key\" needs the name of the header that takes the key, \
          like \"X-Api-Key\""]
    );
    assert_eq!(
        source("api_key_header = \"X-Api-Key\""),
        ["waybill.toml:2: source.api_key_header: needs auth = \"api-key\""]
    );
}
