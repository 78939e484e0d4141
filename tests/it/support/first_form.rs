//! Rows of `waybill_shops` as earlier releases sealed them.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};

use super::mariadb::Database;

fn open(key: &XChaCha20Poly1305, context: &str, text: &str) -> Vec<u8> {
    let sealed = STANDARD.decode(text).unwrap();
    let nonce: [u8; 24] = sealed[1..25].try_into().unwrap();
    key.decrypt(&XNonce::from(nonce), Payload { msg: &sealed[25..], aad: context.as_bytes() }).unwrap()
}

fn seal(key: &XChaCha20Poly1305, context: &str, plain: &[u8]) -> String {
    let nonce: [u8; 24] = std::array::from_fn(|_| fastrand::u8(..));
    let sealed = key.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: context.as_bytes() }).unwrap();
    STANDARD.encode([&[1], &nonce[..], &sealed].concat())
}

/// Seals all rows again for their shop alone, without their source, with the master key in a file.
pub(crate) async fn seal_rows_as_before(database: &Database, key_file: &Path) {
    let text = fs::read_to_string(key_file).unwrap();
    let master =
        XChaCha20Poly1305::new(&Key::from(<[u8; 32]>::try_from(STANDARD.decode(text.trim()).unwrap()).unwrap()));
    let rows: Vec<(String, Vec<u8>)> = database.rows("SELECT id, sealed FROM waybill_shops").await;
    for (shop, sealed) in rows {
        let row: Value = serde_json::from_slice(&sealed).unwrap();
        let at = row["at"].as_i64().unwrap().to_string();
        let context = |field: &str| {
            json!(["waybill 2", "mirrored shop", field, shop, row["client_id"], row["origin"], at]).to_string()
        };
        let bytes = open(&master, &context("data key"), row["data_key"].as_str().unwrap());
        let data_key = XChaCha20Poly1305::new(&Key::from(<[u8; 32]>::try_from(bytes.as_slice()).unwrap()));
        let secret = open(&data_key, &context("client secret"), row["secret"].as_str().unwrap());
        let parts = [
            seal(&master, &format!("data key|{shop}"), &bytes),
            seal(&data_key, &format!("client secret|{shop}"), &secret),
        ];
        let change = "UPDATE waybill_shops SET sealed = ? WHERE id = ?";
        database.conn().await.exec_drop(change, (parts.join("\n").into_bytes(), shop)).await.unwrap();
    }
}
