//! Registers many shops at once, straight into a data directory that no process has open.

use std::time::Duration;

use waybill::domain::Clock;
use waybill::store::{NewShop, Store};

use crate::program::Folder;
use crate::world::secret;

/// Registers the shops like `POST /api/v1/shops`, but without verifying their credentials.
pub(crate) async fn register(folder: &Folder, key: &[u8; 32], clients: &[String]) {
    let store = Store::open(&folder.path("data"), key, Clock::system()).unwrap();
    for some in clients.chunks(500) {
        let created = some.iter().map(|client| {
            store.create_shop(NewShop {
                name: client.clone(),
                client_id: client.clone(),
                client_secret: secret(client).into(),
                account: None,
                resources: vec!["shipments".to_owned()],
            })
        });
        for shop in futures_util::future::join_all(created).await {
            shop.unwrap();
        }
    }
    drop(store);
    // Its thread closes it, and releases the lock then.
    let lock = std::fs::File::open(folder.path("data").join("lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
