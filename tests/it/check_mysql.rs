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

/// The findings about MySQL.
fn findings(folder: &Folder, code: i32) -> String {
    let ended = folder.run(&["check"]).expect(code);
    ended.out.lines().filter(|line| line.contains("mysql")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_start_adds_is_reported_and_does_not_fail() {
    let database = Database::fresh().await;
    let mut folder = Folder::bare();
    folder.write("waybill.toml", "resources = [\"shipments\"]\n");
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    // Everything is missing.
    let said = findings(&folder, 0);
    assert!(said.contains("`waybill_shops`") && said.contains("`shipments`"), "{said}");
    assert!(said.contains("will be created at the next start") && !said.contains("test rows"), "{said}");
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    let said = findings(&folder, 0);
    assert!(!said.contains("next start") && said.contains("test rows were written to shipments"), "{said}");

    // A column, an index, a wider column, a child table and a resource.
    let more = "resources = [\"shipments\", \"returns\"]\n[resource.shipments.table]\nindexes = [\"loyalty_points\"]\n\
                [resource.shipments.table.columns]\nloyalty_points = { from = \"/points\", type = \"integer\" }\n\
                [resource.shipments.table.children.shipment_labels]\nfrom = \"/labels\"\n\
                columns = { code = { from = \"/code\", type = \"text(40)\" } }\n";
    folder.write("waybill.toml", more);
    database.run("ALTER TABLE shipments MODIFY COLUMN ship_to_salutation VARCHAR(8) NULL").await;
    let said = findings(&folder, 0);
    for part in [
        "table `shipments`: column `loyalty_points` will be added",
        "`ship_to_salutation` (varchar(8) to",
        "index `by_loyalty_points` will be added at the next start",
        "`shipment_labels`",
        "`returns`",
        "test rows were written to shipments",
        "`waybill schema replay`",
    ] {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    let said = findings(&folder, 0);
    assert!(!said.contains("next start") && said.contains("test rows were written to shipments, returns"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_user_may_not_make_fails_with_both_statements() {
    let server = MariaDb::start();
    let admin = Database::on(&server.url()).await;
    admin.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    admin.run(&format!("GRANT ALL ON `{}`.* TO app@'127.0.0.1'", admin.name)).await;
    let mut folder = Folder::bare();
    folder.write("waybill.toml", "resources = [\"shipments\"]\n");
    folder.set("WAYBILL_MYSQL_URL", &admin.url_of("app:geheim"));
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    admin.run(&format!("REVOKE ALTER ON `{}`.* FROM app@'127.0.0.1'", admin.name)).await;
    let column = "[resource.shipments.table.columns]\nloyalty_points = { from = \"/points\", type = \"integer\" }\n";
    folder.write("waybill.toml", &format!("resources = [\"shipments\"]\n{column}"));
    let [lacks] = failures(&folder).try_into().unwrap();
    assert!(lacks.contains(&format!("GRANT ALTER ON `{}`.* TO 'app'@'127.0.0.1'", admin.name)), "{lacks}");
    admin.run(statement(&lacks, "ALTER TABLE `shipments` ADD COLUMN `loyalty_points`")).await;
    folder.run(&["check"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_a_start_refuses_fails_with_the_statement_of_the_start() {
    let database = Database::fresh().await;
    let mut folder = Folder::bare();
    let column = |kind: &str| {
        format!(
            "resources = [\"shipments\"]\n[resource.shipments.table.columns]\npoints = {{ from = \"/points\", type = \"{kind}\" }}\n"
        )
    };
    folder.write("waybill.toml", &column("integer"));
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    folder.write("waybill.toml", &column("datetime"));
    let [refused] = failures(&folder).try_into().unwrap();
    assert!(refused.contains("and the definition asks for datetime(6)"), "{refused}");
    let started = folder.run(&["schema", "replay", "--quiet"]).expect(1).err;
    assert!(started.contains(refused.split_once("table `").unwrap().1), "{started}");
    database.run(statement(&refused, "ALTER TABLE `shipments` MODIFY COLUMN `points`")).await;
    folder.run(&["check"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shops_that_mysql_has_are_counted_and_their_key_is_tried() {
    let market = Market::open(Options {
        shops: vec![ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 1, fbb: 0 }],
        ..Options::default()
    })
    .await;
    let mut server = MariaDb::start();
    let admin = Database::on(&server.url()).await;
    let mut folder = Folder::at(&market.base, "");
    folder.set("WAYBILL_MYSQL_URL", &admin.url_of("root"));
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], "s3cret").expect(0);
    folder.run(&["sync", "--quiet"]).expect(0);
    let lose = || std::fs::remove_dir_all(folder.path("data")).unwrap();
    lose();
    let shops = |code: i32| {
        let out = folder.run(&["check"]).expect(code).out;
        out.lines().filter(|line| line.contains(" shops: ")).map(str::to_owned).collect::<String>()
    };
    assert!(shops(0).contains("ok    shops: MySQL has 1 shop; the next start restores"), "{}", shops(0));
    assert!(!folder.path("data").exists(), "a check begins nothing");

    // The key is lost too: a start makes another, which opens nothing.
    std::fs::rename(folder.path("data.key"), folder.path("kept.key")).unwrap();
    let lost = shops(1);
    assert!(lost.contains("FAIL  shops: MySQL has 1 shop") && lost.contains("another master key"), "{lost}");
    let said = folder.run(&["sync"]).expect(1).err;
    assert!(said.contains("no shop is known") && said.contains("another master key"), "{said}");
    let status = folder.run(&["status"]).expect(1).out;
    assert!(status.contains("not restored yet") && status.contains("another master key"), "{status}");
    let again = shops(1);
    assert!(again.contains("FAIL  shops: MySQL has 1 shop") && again.contains("another master key"), "{again}");
    lose();
    std::fs::rename(folder.path("kept.key"), folder.path("data.key")).unwrap();

    // MySQL is away, so there may be some.
    tokio::task::block_in_place(|| server.kill());
    let away = shops(1);
    assert!(away.contains("WARN  shops: none here; MySQL may have some"), "{away}");
    for command in [&["sync"][..], &["shops", "list"], &["plan"], &["verify"], &["state"]] {
        let ended = folder.run(command).expect(1);
        assert!(ended.err.contains("MySQL may have shops") && ended.err.contains("no server listens"), "{}", ended.err);
    }
}
