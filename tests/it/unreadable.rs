//! What cannot be read is parked one by one, and reported as a whole.

use std::time::Duration;

use reqwest::Method;
use sandbox::{Fault, FaultKind, Options, ShopOptions};
use serde_json::json;

use crate::support::app::eventually;
use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::program::{Folder, Market, lossy};

/// The lists of the sandbox, by a definition that looks for the id where there is none.
const STRANGE: &str = "[resource.strange]\nmedia_type = \"application/vnd.retailer.v10+json\"\nid = \"/noSuchId\"\n\
    list = { path = \"/retailer/shipments\", items = \"/shipments\", pages = { style = \"number\", parameter = \"page\" }, \
    parameters = { fulfilment-method = [\"FBR\"] } }\ndetail = { path = \"/retailer/shipments/{id}\" }\n\
    [resource.strange.table.columns]\norder_number = { from = \"/order/orderId\", type = \"text(40)\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn when_much_cannot_be_read_the_log_warns_once_a_run_and_a_metric_counts() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 120, fbb: 150 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    // Three of 120 are much, and one of 150 is not.
    let ids = |method: &str| -> Vec<String> {
        market.sandbox.truth("first").into_iter().filter(|(of, ..)| of == method).map(|(_, id, _)| id).collect()
    };
    let (fbr, fbb) = (ids("FBR"), ids("FBB"));
    let bad = fbr.iter().take(3).chain(fbb.iter().take(1));
    let faults = bad.map(|id| Fault::always(&format!("/retailer/shipments/{id}"), FaultKind::Garbage)).collect();
    market.sandbox.set_faults(faults);
    let lifted = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let mut folder = Folder::at(&market.base, &format!("{lifted}[limits]\nattempts_max = 1\n{STRANGE}"));
    folder.set("WAYBILL_RESOURCES", "shipments,strange");
    let serving = folder.serve();
    let shop = json!({"name": "First", "client_id": "first", "client_secret": "s3cret"});
    let made = serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap();
    let id = made.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let status = serving.idle(Duration::from_secs(60)).await;
    let metrics = serving.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let runs = serving.all("/api/v1/runs").await;
    assert_eq!(serving.terminate().0, Some(0));

    let strange = status["parked"].as_u64().unwrap() - 4;
    assert!(strange > 0, "{status}");
    for metric in [r#"{resource="shipments"} 4"#.to_owned(), format!(r#"{{resource="strange"}} {strange}"#)] {
        assert!(metrics.contains(&format!("waybill_unreadable_total{metric}\n")), "{metric}: {metrics}");
    }
    let log = lossy(&folder.path("serve.stderr"));
    let reported: Vec<&str> = log.lines().filter(|line| line.contains("in a hundred")).collect();
    assert_eq!(reported.len(), 2, "{reported:#?}\n{log}");
    assert!(reported.iter().all(|line| line.contains("WARN") && line.contains(&format!("/api/v1/parked?shop={id}"))));
    let of = |resource: &str| reported.iter().find(|line| line.contains(resource)).copied().unwrap_or_default();
    let (rows, details) = (of("of a page"), of("of a run"));
    assert!(rows.contains("strange"), "{rows}");
    let run = runs.iter().find(|run| run["resource"] == "shipments" && run["parked"] == 3).unwrap();
    for part in ["shipments", "unreadable=3", "of=120", &format!("run.id={}", run["id"])] {
        assert!(details.contains(part), "{part}: {details}");
    }
    assert!(runs.iter().all(|run| run["state"] == "done"), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_mysql_refuses_many_documents_the_log_names_one() {
    let database = Database::fresh().await;
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 40, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let mut folder = Folder::at(&market.base, "");
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    let serving = folder.serve();
    let table = async || database.rows::<String>("SHOW TABLES LIKE 'shipments'").await.pop();
    eventually("the table", table).await;
    let refused = "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = 'too long'";
    database.run(&format!("CREATE TRIGGER refused BEFORE INSERT ON shipments FOR EACH ROW {refused}")).await;
    let shop = json!({"name": "First", "client_id": "first", "client_secret": "s3cret"});
    let made = serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let status = serving.idle(Duration::from_secs(60)).await;
    assert_eq!(status["parked"], 40, "{status}");
    assert_eq!(serving.terminate().0, Some(0));
    let log = lossy(&folder.path("serve.stderr"));
    let reported = log.lines().filter(|line| line.contains("it is parked")).count();
    // A second one where this machine is so slow that a minute passed.
    assert!((1..=2).contains(&reported), "{log}");
}
