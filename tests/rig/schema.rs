//! Documents that change their form. Each document of a shop differs from the known form in one place; what can be
//! read is stored as it is, what cannot is parked with the place in its reason, and the rest goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mariadb::Database;
use crate::oracle::{self, Allowed};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
const QUIET: Duration = Duration::from_secs(60);
/// Mutated documents of one world; more mutations are more worlds.
const AT_ONCE: usize = 250;
/// Where the definition finds a document's id.
const ID: &str = "shipmentId";

/// A defect of a document or its id as a whole.
const ABOUT_ALL: [&str; 3] = ["not an object", "the id is longer", "the id is empty"];

/// Generated mutations, a world at a time.
pub(crate) async fn mutations(mut run: Run) {
    let mut left = run.tier.pick(60, 500, 5_000);
    while left > 0 {
        let count = left.min(AT_ONCE);
        let part = run.part();
        mutated(part, count).await;
        left -= count;
    }
}

/// A document before, and as served now.
struct Mutant {
    id: String,
    method: sandbox::Method,
    before: [Value; 2],
    after: [Value; 2],
    what: String,
}

async fn mutated(mut run: Run, count: usize) {
    let toml = "[limits]\nattempts_max = 2\n";
    let mysql = Some(Database::fresh().await);
    let rows = [count * 2 / 3 + 5, count / 3 + 5];
    let mut world = World::open(&run, Plan { mysql, list: FREE, detail: FREE, toml, ..Plan::of(1, rows) }).await;
    let client = world.clients[0].clone();
    let mutants = breed(&world, &client, count, &mut run.random);
    for mutant in &mutants {
        run.note(&mutant.what);
        put(&world, &client, mutant, &mutant.after);
    }
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(QUIET).await;
    let parked = serving.all("/api/v1/parked").await;
    let stored: BTreeMap<String, Value> = serving
        .all("/api/v1/shipments")
        .await
        .into_iter()
        .map(|item| (item["id"].as_str().unwrap().to_owned(), item["document"].clone()))
        .collect();
    for mutant in &mutants {
        let readable = mutant.after.iter().all(|form| is_readable(form, &mutant.id));
        assert_eq!(stored.get(&mutant.id), readable.then_some(&mutant.after[1]), "{}", mutant.what);
        assert!(readable || is_accounted(mutant, &parked), "{} is not parked: {parked:#?}", mutant.what);
    }
    for one in &parked {
        let reason = one["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("/{ID}")) || ABOUT_ALL.iter().any(|words| reason.contains(words)), "{one}");
    }
    let unread = mutants.iter().filter(|mutant| !stored.contains_key(&mutant.id)).count();
    assert_eq!(stored.len() + unread, world.market.sandbox.truth(&client).len(), "the others go on");
    run.note(format!("{} stored, {} parked", stored.len(), parked.len()));
    // The old form comes back, and so does everything.
    for mutant in &mutants {
        put(&world, &client, mutant, &mutant.before);
    }
    world.retry_parked(&serving).await;
    oracle::judge_allowing(world, serving, Allowed { late: true, ..Allowed::default() }).await;
}

fn put(world: &World, client: &str, mutant: &Mutant, [row, detail]: &[Value; 2]) {
    let texts = [row.to_string(), detail.to_string()];
    world.market.sandbox.put(client, mutant.method, &mutant.id, texts).unwrap();
}

/// Mutates documents of the shop, each in one place: of its detail, or, occasionally, of its row.
fn breed(world: &World, client: &str, count: usize, random: &mut fastrand::Rng) -> Vec<Mutant> {
    let sandbox = &world.market.sandbox;
    let mut all = sandbox.truth(client);
    random.shuffle(&mut all);
    let mutant = |(method, id, detail): (String, String, Value)| {
        let method = if method == "FBB" { sandbox::Method::Fbb } else { sandbox::Method::Fbr };
        let before = [sandbox.row(client, &id).unwrap().unwrap(), detail];
        let mut after = before.clone();
        let of_row = random.u8(..5) == 0;
        let victim = &mut after[usize::from(!of_row)];
        // The id is one field of a hundred, and the one that matters.
        let path = if random.u8(..6) == 0 { format!("/{ID}") } else { any_path(victim, random) };
        let what = mutate(victim, &path, random);
        if !of_row {
            // The row changes too, so that the document is read again once the fault is removed.
            after[0]["seen"] = json!("changed");
        }
        let what = format!("{id}: {} {path}: {what}", if of_row { "row" } else { "detail" });
        Mutant { id, method, before, after, what }
    };
    all.into_iter().take(count).map(mutant).collect()
}

/// Whether the document is reported as unreadable. Rows without an id are parked once per reason, since they cannot be
/// distinguished; a row with another id is another document, which the API does not know.
fn is_accounted(mutant: &Mutant, parked: &[Value]) -> bool {
    let row = &mutant.after[0];
    if is_readable(row, &mutant.id) {
        return parked.iter().any(|one| one["document_id"] == mutant.id);
    }
    let is_whole = row[ID].is_i64() || row[ID].is_u64();
    let another = is_whole || row[ID].as_str().is_some_and(|id| !id.is_empty() && id.len() <= 128);
    another || parked.iter().any(|one| one["job"] == "list_page")
}

/// Whether its id can be determined. Nothing else is required.
fn is_readable(form: &Value, id: &str) -> bool {
    match &form[ID] {
        Value::String(text) => text == id,
        Value::Number(number) => (number.is_i64() || number.is_u64()) && number.to_string() == id,
        _ => false,
    }
}

/// The pointer of some value below the root, or of the root itself.
fn any_path(document: &Value, random: &mut fastrand::Rng) -> String {
    let mut paths = vec![String::new()];
    collect(document, "", &mut paths);
    paths.swap_remove(random.usize(..paths.len()))
}

fn collect(value: &Value, at: &str, paths: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!("{at}/{name}"), value)).collect(),
        Value::Array(elements) => {
            elements.iter().enumerate().map(|(place, value)| (format!("{at}/{place}"), value)).collect()
        }
        _ => return,
    };
    for (path, value) in below {
        collect(value, &path, paths);
        paths.push(path);
    }
}

/// Changes the value at the pointer; describes how.
fn mutate(document: &mut Value, path: &str, random: &mut fastrand::Rng) -> &'static str {
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    if !path.is_empty()
        && let Some(Value::Object(fields)) = document.pointer_mut(parent)
    {
        match random.u8(..8) {
            0 => {
                fields.remove(name);
                return "removed";
            }
            1 => {
                let value = fields.remove(name).unwrap();
                fields.insert(format!("{name}Renamed"), value);
                return "renamed";
            }
            2 => {
                fields.insert("addedField".to_owned(), json!({"new": [1, {"deep": null}], "\u{1F4E6}": "\u{0}"}));
                return "a field beside it added";
            }
            _ => {}
        }
    }
    let value = document.pointer_mut(path).unwrap();
    let (what, new) = other_form(value, random);
    *value = new;
    what
}

/// Another value in place of this one.
fn other_form(value: &Value, random: &mut fastrand::Rng) -> (&'static str, Value) {
    let general = [
        ("null", Value::Null),
        ("in an array", json!([value])),
        ("in an object", json!({"value": value})),
        ("empty array", json!([])),
        ("empty object", json!({})),
        ("boolean", json!(true)),
        ("fraction", json!(0.5)),
    ];
    let special = match value {
        Value::String(text) => vec![
            ("new enum value", json!("SOMETHING_NEW")),
            ("other date form", json!("22-11-2026 15:04")),
            ("date without a zone", json!("2026-11-22T15:04:05")),
            ("milliseconds", json!(1_795_359_845_000_u64)),
            ("number", text.parse::<u64>().map_or(json!(7), |number| json!(number))),
            ("long text", json!("\u{e9}".repeat(70_000))),
        ],
        Value::Number(number) => vec![
            ("text", json!(number.to_string())),
            ("negative", json!(-1)),
            ("beyond every column", json!(1e300)),
            ("beyond i64", json!(u64::MAX)),
        ],
        Value::Bool(flag) => vec![("text", json!(if *flag { "yes" } else { "no" })), ("number", json!(1))],
        Value::Array(elements) => vec![
            ("object", elements.iter().enumerate().map(|(place, value)| (place.to_string(), value.clone())).collect()),
            ("array of numbers", json!([1, 2])),
            ("array of arrays", json!([elements])),
        ],
        Value::Object(fields) => vec![("array", fields.values().cloned().collect()), ("text", json!("flat"))],
        Value::Null => vec![("text", json!("not null"))],
    };
    let mut forms: Vec<(&'static str, Value)> = special.clone();
    forms.extend(special);
    forms.extend(general);
    forms.swap_remove(random.usize(..forms.len()))
}
