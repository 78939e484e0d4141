//! Texts from the API and from clients are shown as text in the dashboard. In a real browser: no dialog, no violation
//! of the content policy, no error, and every text is readable.

use std::collections::BTreeMap;
use std::time::Duration;

use sandbox::{Fault, FaultBody, FaultKind};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::edge_content::{TEXTS, is_name};
use crate::oracle::{self, Allowed};
use crate::program::{ADMIN_KEY, Serving};
use crate::run::Run;
use crate::world::{Limit, Plan, World, until};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
const QUIET: Duration = Duration::from_secs(60);
/// Each is an injection into a page that does not treat it as text.
const ATTACKS: [&str; 6] = [
    "<script>alert('waybill')</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "</textarea><iframe src=javascript:alert(1)></iframe>",
    "<b id=owned>bold</b>",
    "{{7*7}}${7*7}",
];

/// The dashboard over shops, runs and parked documents full of injections.
pub(crate) async fn pages(mut run: Run) {
    let toml = "[limits]\nattempts_max = 1\n";
    let mut world = World::open(&run, Plan { list: FREE, detail: FREE, toml, ..Plan::of(4, [20, 5]) }).await;
    let serving = world.start().await;
    let names: Vec<&str> = {
        let mut names: Vec<&str> = TEXTS.iter().filter(|text| is_name(text)).copied().collect();
        run.random.shuffle(&mut names);
        [&[ATTACKS[0], ATTACKS[1]], &names[..2]].concat()
    };
    let ids = odd_documents(&world);
    world.register_all(&serving).await;
    serving.idle(QUIET).await;
    for (client, name) in world.clients.iter().zip(&names) {
        run.note(format!("{client} is called {name:?}"));
        let (status, answer) = world.change(&serving, client, json!({"name": name})).await;
        assert_eq!(status, 200, "{answer}");
    }
    odd_failures(&world, &serving).await;
    let base = serving.base.clone();
    let expected: Vec<String> = names
        .iter()
        .map(|name| (*name).to_owned())
        .chain(ids)
        .chain(ATTACKS[2..4].iter().map(ToString::to_string))
        .collect();
    tokio::task::block_in_place(|| read_in_a_browser(&base, &expected));
    world.market.sandbox.set_faults(Vec::new());
    let (refused, secret) = (&world.clients[2], "canary-new-secret-of-the-refused");
    world.market.sandbox.set_secret(refused, secret).unwrap();
    let (status, answer) = world.change(&serving, refused, json!({"client_secret": secret})).await;
    assert_eq!(status, 200, "{answer}");
    for (client, id) in world.clients.iter().flat_map(|client| ATTACKS.map(|id| (client, format!("{id} ")))) {
        world.market.sandbox.remove(client, &id).unwrap();
    }
    oracle::judge_allowing(
        world,
        serving,
        Allowed { parked: true, failed_runs: true, late: true, ..Allowed::default() },
    )
    .await;
}

/// Rows whose ids cannot be stored, so that they appear among the parked; returns the ids as shown.
fn odd_documents(world: &World) -> Vec<String> {
    let sandbox = &world.market.sandbox;
    let client = &world.clients[0];
    let (_, model, _) = sandbox.truth(client).swap_remove(0);
    let row = sandbox.row(client, &model).unwrap().unwrap();
    for attack in ATTACKS {
        let mut row = row.clone();
        row["shipmentId"] = json!(format!("{attack} "));
        sandbox.put(client, sandbox::Method::Fbr, &format!("{attack} "), [row.to_string(), "{}".to_owned()]).unwrap();
    }
    ATTACKS.map(str::to_owned).to_vec()
}

/// A failing walk and a refused shop, each with an injection as the reason.
async fn odd_failures(world: &World, serving: &Serving) {
    let status = |code: u16, body: Value| {
        let body = FaultBody::Text(body.to_string());
        FaultKind::Status { code, body, headers: BTreeMap::new() }
    };
    let rejected = Fault::always("/retailer/shipments?", status(400, json!({"title": ATTACKS[2]})));
    let refused = Fault::always("/token", status(401, json!({"error": ATTACKS[3]})));
    world.market.sandbox.set_faults(vec![
        Fault { client_id: Some(world.clients[1].clone()), ..rejected },
        Fault { client_id: Some(world.clients[2].clone()), ..refused },
    ]);
    world.market.sandbox.kill_tokens();
    for client in &world.clients[1..3] {
        let (status, answer) = world.walk(serving, client).await;
        assert_eq!(status, 202, "{answer}");
    }
    until!(world, "the odd failures", QUIET, {
        let failed = serving.all("/api/v1/runs").await.iter().any(|run| run["state"] == "failed");
        failed && world.shop(serving, &world.clients[2]).await["state"] == "refused"
    });
}

/// Every page, with an admin key; each text must be readable.
fn read_in_a_browser(base: &str, expected: &[String]) {
    let first = format!(
        "sessionStorage.setItem('waybill-key', '{ADMIN_KEY}'); window.violations = [];\n\
         addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective + ' ' + event.sample));"
    );
    let mut browser = Browser::open(&first);
    for (path, ready) in [
        (
            "/",
            "document.querySelectorAll('#shops tbody tr').length === 4 && document.querySelectorAll('#parked tbody tr').length > 5",
        ),
        ("/docs", "document.querySelectorAll('details.operation').length > 5"),
    ] {
        browser.go(&format!("{base}{path}"));
        browser.until(&format!("document.readyState === 'complete' && {ready}"));
        let text = browser.value("document.body.textContent");
        for shown in expected.iter().filter(|_| path == "/") {
            assert!(text.as_str().unwrap().contains(shown.as_str()), "{shown:?} is not to be read in {text}");
        }
        let made =
            "document.querySelectorAll('main script, main iframe, main [onerror], main [onload], #owned').length";
        assert_eq!(browser.value(made), json!(0), "text became markup in {path}");
        assert_eq!(browser.value("violations"), json!([]), "the content policy was violated in {path}");
    }
    let bad = browser.events(&["Page.javascriptDialogOpening", "Runtime.exceptionThrown", "Log.entryAdded"]);
    assert!(bad.is_empty(), "{bad:#?}");
}
