//! What the measurements share: a process that ends with its owner, and a database of their own.

use std::process::Child;

use mysql_async::prelude::Queryable as _;

/// Killed when it is dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The database that this process measures with, by what it measures.
pub(crate) fn database_name(of: &str) -> String {
    format!("waybill_{of}_{}", std::process::id())
}

pub(crate) async fn drop_database(server: &str, name: &str) -> anyhow::Result<()> {
    let mut conn = mysql_async::Conn::from_url(server).await?;
    conn.query_drop(format!("DROP DATABASE {name}")).await?;
    Ok(conn.disconnect().await?)
}

/// Makes an empty database; returns its URL.
pub(crate) async fn fresh_database(server: &str, name: &str) -> anyhow::Result<String> {
    let mut conn = mysql_async::Conn::from_url(server).await?;
    conn.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await?;
    conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await?;
    conn.disconnect().await?;
    Ok(format!("{}/{name}", server.trim_end_matches('/')))
}
