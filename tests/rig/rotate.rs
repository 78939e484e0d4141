//! The master key rotates while kill -9 comes at any moment, by the command alone and by the service. At the end the new
//! key opens every secret, in the data directory and in MySQL, and the old ones open nothing.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Options, ShopOptions};
use secrecy::ExposeSecret as _;
use waybill::domain::Clock;
use waybill::store::{Store, StoreError, master_key_id};

use crate::many_shops;
use crate::mariadb::Database;
use crate::program::{Folder, Market};
use crate::run::Run;
use crate::world::secret;

/// No pace of our own.
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
/// The first walks of all shops are over within this.
const IDLE_WITHIN: Duration = Duration::from_secs(8 * 60);

pub(crate) async fn kills(mut run: Run) {
    let clients: Vec<String> = (0..run.tier.pick(60, 1_000, 1_000)).map(|number| format!("client-{number}")).collect();
    let shop = |client_id: &String| ShopOptions {
        client_id: client_id.clone(),
        client_secret: secret(client_id),
        fbr: 1,
        fbb: 0,
    };
    let shops = clients.iter().map(shop).collect();
    let rules = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = rules.map(|rule| (rule.to_owned(), "none".to_owned())).into();
    let market = Market::open(Options { seed: run.seed, shops, limits, logins_max: None, ..Options::default() }).await;
    let database = Database::fresh().await;
    let mut folder = Folder::at(&market.base, &format!("{LIFTED}[mysql]\nurl = \"{}\"\n", database.url()));
    folder.set("WAYBILL_SOURCE_LOGINS_PER_SECOND", "500");
    folder.run(&["keys", "create", "--name", "first"]).expect(0);
    many_shops::register(&folder, &key(&folder), &clients).await;
    let serving = folder.serve();
    serving.idle(IDLE_WITHIN).await;
    assert_eq!(serving.terminate().0, Some(0));
    let mut old = vec![key(&folder)];

    // How long one takes that is left alone.
    let begun = Instant::now();
    folder.run(&["keys", "rotate-master"]).expect(0);
    let whole = begun.elapsed();
    let rotations = run.tier.pick(3, 50, 200);
    for round in 0..rotations {
        old.push(key(&folder));
        let after = whole.mul_f64(run.random.f64() * 1.1);
        let by_command = round % 3 != 2 || !folder.path("data.key.new").exists();
        let going = folder.spawn(if by_command { &["keys", "rotate-master"] } else { &["serve"] });
        // The moment is the test's input; nothing is waited for.
        tokio::time::sleep(after).await;
        going.kill();
        run.note(format!("{round}: killed after {after:?}, by command: {by_command}"));
    }
    folder.run(&["keys", "rotate-master"]).expect(0);
    let new = key(&folder);
    old.sort_unstable();
    old.dedup();
    old.retain(|one| *one != new);
    run.note(format!("{} keys were used, a rotation takes {whole:?}", old.len() + 1));
    judge(&folder, &database, (&old, &new), clients.len()).await;
}

/// Everything opens with the new key and nothing with an old one.
async fn judge(folder: &Folder, database: &Database, keys: (&[[u8; 32]], &[u8; 32]), shops: usize) {
    let (old, new) = keys;
    let open = |key: &[u8; 32]| Store::open(&folder.path("data"), key, Clock::system());
    for key in old {
        assert!(matches!(open(key).map(drop), Err(StoreError::WrongMasterKey { .. })));
    }
    assert!(!folder.path("data.key.new").exists());
    let store = open(new).unwrap();
    let known = store.shops().unwrap();
    assert_eq!(known.len(), shops);
    for shop in known {
        let secrets = store.secrets(&shop.id).unwrap();
        assert_eq!(secrets.client_secret.expose_secret(), secret(&shop.client_id), "{}", shop.id);
    }
    drop(store);
    let text = "SELECT DISTINCT JSON_VALUE(CONVERT(sealed USING utf8mb4), '$.key') FROM waybill_shops";
    assert_eq!(database.rows::<String>(text).await, [master_key_id(new)]);
    let lock = std::fs::File::open(folder.path("data").join("lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(lock);
    std::fs::remove_dir_all(folder.path("data")).unwrap();
    folder.run(&["shops", "pause", "unknown"]).expect(2);
    let listed: serde_json::Value =
        serde_json::from_str(&folder.run(&["shops", "list", "--json"]).expect(0).out).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), shops, "from MySQL, with the new key alone");
}

fn key(folder: &Folder) -> [u8; 32] {
    let text = std::fs::read_to_string(folder.path("data.key")).unwrap();
    STANDARD.decode(text.trim()).unwrap().try_into().unwrap()
}
