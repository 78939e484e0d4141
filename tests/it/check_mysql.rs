//! What `waybill check` and a start say of a MySQL that does not let us in: one failure a cause, with the statement that
//! repairs it.

use crate::support::mariadb::{Database, MariaDb};
use crate::support::program::{Folder, Market, lossy};
use sandbox::{Options, ShopOptions};

/// The lines that failed.
fn failures(folder: &Folder) -> Vec<String> {
    let ended = folder.run(&["check"]).expect(1);
    ended.out.lines().filter(|line| line.starts_with("FAIL")).map(str::to_owned).collect()
}

/// The statement in a remedy that begins with these words.
fn statement<'a>(failure: &'a str, words: &str) -> &'a str {
    let at = failure.find(words).unwrap_or_else(|| panic!("`{words}` is not in {failure}"));
    failure.get(at..).unwrap().split([';', ',']).next().unwrap().split(" or ").next().unwrap().trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_access_is_one_failure_and_its_statement_repairs_it() {
    let server = MariaDb::start();
    let mut folder = Folder::bare();
    folder.write("waybill.toml", "");
    let address = |user: &str, name: &str| format!("{}/{name}", server.url().replacen("root", user, 1));
    let admin = Database::on(&server.url()).await;

    // A database that does not exist.
    folder.set("WAYBILL_MYSQL_URL", &address("root", "way_bill"));
    let [unknown] = failures(&folder).try_into().unwrap();
    admin.run(statement(&unknown, "CREATE DATABASE `way_bill`")).await;
    folder.run(&["check"]).expect(0);

    // A user without any right on it; then with the rights of the statement.
    admin.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    folder.set("WAYBILL_MYSQL_URL", &address("app:geheim", "way_bill"));
    let [no_right] = failures(&folder).try_into().unwrap();
    let words = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER ON `way_bill`.* TO 'app'@'127.0.0.1'";
    assert!(no_right.contains(words), "{no_right}");

    // Some rights, and no tables yet: what is lacking in one statement.
    admin.run("GRANT SELECT, INSERT ON `way_bill`.* TO app@'127.0.0.1'").await;
    let [some] = failures(&folder).try_into().unwrap();
    let words = "GRANT UPDATE, DELETE, CREATE, ALTER ON `way_bill`.* TO 'app'@'127.0.0.1'";
    assert!(some.contains(words), "{some}");
    admin.run(words).await;
    folder.run(&["check"]).expect(0);

    // A wrong password. It is not shown.
    folder.set("WAYBILL_MYSQL_URL", &address("app:canary-password", "way_bill"));
    let [denied] = failures(&folder).try_into().unwrap();
    assert!(denied.contains("ALTER USER 'app'@'127.0.0.1' IDENTIFIED BY"), "{denied}");
    assert!(denied.contains("user or password in mysql.url") && !denied.contains("canary"), "{denied}");

    // Nothing listens.
    folder.set("WAYBILL_MYSQL_URL", "mysql://root@127.0.0.1:1/waybill");
    let [refused] = failures(&folder).try_into().unwrap();
    assert!(refused.contains("no server listens") && refused.contains("systemctl start"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_revoked_are_one_failure_though_the_tables_are_there() {
    let server = MariaDb::start();
    let admin = Database::on(&server.url()).await;
    admin.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    admin.run(&format!("GRANT ALL ON `{}`.* TO app@'127.0.0.1'", admin.name)).await;
    let mut folder = Folder::bare();
    folder.write("waybill.toml", "");
    folder.set("WAYBILL_MYSQL_URL", &admin.url_of("app:geheim"));
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    folder.run(&["check"]).expect(0);
    admin.run(&format!("REVOKE INSERT, DELETE, CREATE ON `{}`.* FROM app@'127.0.0.1'", admin.name)).await;
    let [revoked] = failures(&folder).try_into().unwrap();
    assert!(revoked.contains(&format!("GRANT INSERT, DELETE ON `{}`.* TO", admin.name)), "{revoked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_the_same_of_a_database_that_does_not_exist() {
    let server = MariaDb::start();
    let lifted = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 3, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], ..Options::default() }).await;
    let mut folder = Folder::at(&market.base, lifted);
    let database = format!("{}/way_bill", server.url());
    folder.set("WAYBILL_MYSQL_URL", &database);
    let serving = folder.serve();
    let warned = || lossy(&folder.path("serve.stderr")).contains("run CREATE DATABASE `way_bill`");
    let begun = std::time::Instant::now();
    while !warned() && begun.elapsed() < std::time::Duration::from_secs(30) {
        tokio::task::yield_now().await;
    }
    assert!(warned(), "{}", lossy(&folder.path("serve.stderr")));
    let error = serving.get("/api/v1/status").await["sink"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("run CREATE DATABASE `way_bill`"), "{error}");
    assert_eq!(serving.terminate().0, Some(0));
}
