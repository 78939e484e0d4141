//! The MySQL and MariaDB sink.
//!
//! The writer calls [`Mysql::write`]; the HTTP side calls [`Mysql::list`], [`Mysql::get`] and [`Mysql::ping`]; the
//! start calls [`Mysql::prepare`]. All SQL works in both servers; values are parameters of prepared statements, never
//! part of the SQL text.
//!
//! What always holds: a batch is one transaction; a document of an older version never overwrites a newer one,
//! children included; every write can be repeated. A connection that failed, timed out or reached a read-only server
//! does not return to the pool.

mod alike;
mod child_check;
mod compare;
mod epoch;
mod errors;
mod execute;
mod fence;
mod inspect;
mod installation;
mod layout;
mod mirror;
mod plan;
mod query;
mod register;
mod rehearse;
mod remedy;
mod replace;
mod replay;
mod rights;
mod schema;
mod source_claim;
mod statements;
mod tls;
mod types;
mod value;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, SslOpts};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::catalog::Definition;
use crate::sink::{SinkError, SinkErrorClass};

use epoch::Fence;
use errors::sink_error;
use layout::Layout;

pub use child_check::Range;
pub use compare::PlannedChange;
pub use inspect::{Severity, TableFault};
pub use installation::SchemaSources;
pub use mirror::{LedgerPart, LedgerRow, MirroredShop};
pub use register::{Claim, Hold, Member, Members, Promise, Register, Registered, Role};
pub use rehearse::Inspection;
pub use remedy::grant;
pub use replay::{ReplayScope, Replayed};
pub use rights::Rights;
pub use schema::{ddl, own_ddl};
pub use source_claim::SourceClaim;

/// Timeout of a connection attempt, the handshake included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Timeout of one answer: a dead connection is noticed within half a minute.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(25);
/// Timeout of a read. Searches with `q` scan every row of a shop.
const READ_TIME_MAX: Duration = Duration::from_secs(30);
/// Timeout of a graceful disconnect.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// One writer and a few readers; the server, not the pool, is the limit (measured: a second writer adds a third, a
/// fourth adds nothing).
const CONNECTIONS_MAX: usize = 8;
/// Concurrent reads, so that readers never block the writer.
const READS_MAX: usize = 5;
/// Load balancers and firewalls drop old and idle connections silently.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
const CONNECTION_AGE_JITTER: Duration = Duration::from_secs(600);
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(300);
/// Covers about ten tables in the statement sizes in use; also bounds the server's memory for them.
const STATEMENTS_CACHED: usize = 128;

/// Run on each new connection. A short row lock timeout: a client that holds a row delays that document only, while a
/// locked table is waited for and no document is blamed. READ COMMITTED avoids gap locks, and so most deadlocks; our
/// writes lock the rows they read first.
const SESSION: [&str; 3] = [
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION', \
     time_zone = '+00:00', innodb_lock_wait_timeout = 2, lock_wait_timeout = 10",
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// The sink. Share it by reference; all methods may run at the same time.
pub struct Mysql {
    pool: Pool,
    opts: Opts,
    /// Without an owner until the app sets one.
    fence: Fence,
    /// User and database of the address, for the statements in messages.
    names: (String, String),
    /// Host and port, if the connection is not encrypted.
    plain: Option<(String, u16)>,
    /// Whether the server offers TLS, cached: each check costs the server a failed connection.
    offers_tls: OnceCell<Option<bool>>,
    layouts: Vec<Layout>,
    /// The source that the process is configured for; None: it neither reads nor writes shops.
    claim: Option<SourceClaim>,
    /// The server's `max_allowed_packet`; 0 means unknown.
    packet: AtomicUsize,
    /// Limits concurrent reads, so that connections remain for the writer.
    reads: Semaphore,
    /// Whether the notices about the tables were logged.
    has_warned: AtomicBool,
}

impl fmt::Debug for Mysql {
    /// Omits the address, which contains the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<&str> = self.layouts.iter().map(|layout| layout.parent.name.as_str()).collect();
        f.debug_struct("Mysql").field("tables", &tables).finish_non_exhaustive()
    }
}

impl Mysql {
    /// Like [`Mysql::at`], trusting the machine's certificate authorities.
    ///
    /// # Errors
    /// As [`Mysql::at`].
    pub fn new(url: &SecretString, definitions: Vec<Arc<Definition>>) -> Result<Mysql, SinkError> {
        Mysql::at(url, None, definitions)
    }

    /// Creates the sink for `mysql://user:password@host:3306/database`. With a certificate file the connection is
    /// encrypted, and the server's certificate must be signed by one of those authorities. Needs a tokio runtime; does
    /// no IO.
    ///
    /// # Errors
    /// Class `Operator`: an unusable address or certificate file, or definitions that do not fit a table.
    pub fn at(
        url: &SecretString,
        ca_file: Option<&Path>,
        definitions: Vec<Arc<Definition>>,
    ) -> Result<Mysql, SinkError> {
        let operator = |text: String| SinkError::new(SinkErrorClass::Operator, text);
        let opts = options(url, ca_file).map_err(|(key, what)| operator(format!("{key}: {what}")))?;
        let layouts: Vec<Layout> =
            definitions.into_iter().map(Layout::new).collect::<Result<_, _>>().map_err(operator)?;
        let plain = opts.ssl_opts().is_none().then(|| (opts.ip_or_hostname().to_owned(), opts.tcp_port()));
        let names = (opts.user().unwrap_or_default().to_owned(), opts.db_name().unwrap_or_default().to_owned());
        Ok(Mysql {
            names,
            pool: Pool::new(opts.clone()),
            opts,
            fence: Fence::off(),
            plain,
            offers_tls: OnceCell::new(),
            layouts,
            claim: None,
            packet: AtomicUsize::new(0),
            reads: Semaphore::new(READS_MAX),
            has_warned: AtomicBool::new(false),
        })
    }

    /// Checks that the server answers a statement.
    ///
    /// # Errors
    /// Why it does not. Cancel safe.
    pub async fn ping(&self) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(CONNECT_TIME_MAX, conn.query_drop("SELECT 1")).await;
        self.settle(conn, outcome.map(|done| done.map_err(|error| sink_error(&error)))).await
    }

    /// Where the schema is, for messages and notes.
    pub fn schema_name(&self) -> String {
        let (opts, (_, database)) = (&self.opts, &self.names);
        format!("MySQL schema `{database}` on {}:{}", opts.ip_or_hostname(), opts.tcp_port())
    }

    /// Closes all connections; later calls fail with class `Unavailable`.
    ///
    /// # Errors
    /// The server did not close in time; nothing is lost.
    pub async fn disconnect(&self) -> Result<(), SinkError> {
        match timeout(CLOSE_TIME_MAX, self.pool.clone().disconnect()).await {
            Ok(done) => done.map_err(|error| sink_error(&error)),
            Err(_) => Err(SinkError::new(SinkErrorClass::Disconnected, "MySQL: connections did not close in time")),
        }
    }

    /// Waits for a read permit.
    async fn may_read(&self) -> Result<SemaphorePermit<'_>, SinkError> {
        match timeout(CONNECT_TIME_MAX, self.reads.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(SinkError::new(SinkErrorClass::Unavailable, "MySQL: too many reads at once")),
        }
    }

    async fn connection(&self) -> Result<Conn, SinkError> {
        match timeout(CONNECT_TIME_MAX, self.pool.get_conn()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => {
                let is_denied = matches!(&error, mysql_async::Error::Server(error) if error.code == errors::DENIED);
                let mut error = self.named(sink_error(&error));
                if is_denied {
                    error.text.push_str(self.tls_hint().await);
                }
                // A full server can end the handshake with any error: a failed login must not park a document.
                Err(match error.class {
                    SinkErrorClass::Operator | SinkErrorClass::NoRoom => error,
                    SinkErrorClass::Repeat
                    | SinkErrorClass::Disconnected
                    | SinkErrorClass::Unavailable
                    | SinkErrorClass::Unconfirmed
                    | SinkErrorClass::Poison
                    | SinkErrorClass::Fenced
                    | SinkErrorClass::Unknown => SinkError { class: SinkErrorClass::Unavailable, ..error },
                })
            }
            Err(_) => Err(SinkError::new(
                SinkErrorClass::Unavailable,
                format!("MySQL: no connection within {} s", CONNECT_TIME_MAX.as_secs()),
            )),
        }
    }

    /// Puts the names of the address in place of those that the server did not say.
    fn named(&self, mut error: SinkError) -> SinkError {
        let (user, database) = &self.names;
        for (place, name) in [(remedy::DATABASE, database), (remedy::USER, user)] {
            if !name.is_empty() && error.text.contains(place) {
                error.text = error.text.replace(place, name);
            }
        }
        error
    }

    /// Hints at TLS if a login was refused: servers that reject unencrypted connections report the same error.
    async fn tls_hint(&self) -> &'static str {
        let Some((host, port)) = &self.plain else { return "" };
        match self.offers_tls.get_or_init(|| tls::is_offered(host, *port)).await {
            Some(true) => {
                "; the connection is not encrypted, and the server offers TLS: if it, or this user, requires that, add \
                 ?require_ssl=true to mysql.url, and name a private authority with mysql.ca_file"
            }
            _ => "",
        }
    }

    /// Releases a connection: to the pool if it is sound, otherwise closes it.
    async fn settle<T>(
        &self,
        conn: Conn,
        outcome: Result<Result<T, SinkError>, tokio::time::error::Elapsed>,
    ) -> Result<T, SinkError> {
        let outcome = outcome.unwrap_or_else(|_| {
            Err(SinkError::new(SinkErrorClass::Disconnected, "MySQL did not answer in time; the connection is dropped"))
        });
        let outcome = outcome.map_err(|error| self.named(error));
        if let Err(error) = &outcome {
            // Leave a server that answers but accepts no writes, too: another may take over its address.
            let gone = matches!(
                error.class,
                SinkErrorClass::Disconnected | SinkErrorClass::Unavailable | SinkErrorClass::Unconfirmed
            );
            if gone || error.class == SinkErrorClass::Poison {
                // The next server, or this one after a change, may have other limits.
                self.packet.store(0, Ordering::Relaxed);
            }
            if gone {
                close(conn).await;
            }
            if error.class == SinkErrorClass::Unavailable {
                self.leave().await;
            }
        }
        outcome
    }

    /// Whether the pool holds a used, idle connection.
    fn has_idle(&self) -> bool {
        self.pool.metrics().connections_in_pool.load(Ordering::Relaxed) > 0
    }

    /// Closes the idle connections: they lead to the server that was just left.
    async fn leave(&self) {
        for _ in 0..CONNECTIONS_MAX {
            if !self.has_idle() {
                return;
            }
            match self.connection().await {
                Ok(conn) => close(conn).await,
                Err(_) => return,
            }
        }
    }

    /// Reads the server's packet limit, in bytes.
    async fn packet(&self, conn: &mut Conn) -> Result<usize, SinkError> {
        let known = self.packet.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        let packet: Option<u64> =
            conn.query_first("SELECT @@max_allowed_packet").await.map_err(|error| sink_error(&error))?;
        let packet = packet.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(1 << 20);
        self.packet.store(packet, Ordering::Relaxed);
        Ok(packet)
    }

    fn layout(&self, resource: &str) -> Result<&Layout, SinkError> {
        self.layouts
            .iter()
            .find(|layout| layout.definition.name == resource)
            .ok_or_else(|| SinkError::new(SinkErrorClass::Operator, format!("resource {resource} is not configured")))
    }
}

/// Closes a connection. A failed goodbye is only logged.
async fn close(conn: Conn) {
    match timeout(CLOSE_TIME_MAX, conn.disconnect()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "MySQL: closing a failed connection"),
        Err(_) => tracing::debug!("MySQL: a failed connection did not close in time"),
    }
}

/// Applies a timeout to an answer; on timeout the connection is lost.
async fn answered<T>(patience: Duration, answer: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
    let late = |_| {
        let text = format!("MySQL did not answer within {} s; the connection is dropped", patience.as_secs());
        Err(SinkError::new(SinkErrorClass::Disconnected, text))
    };
    timeout(patience, answer).await.unwrap_or_else(late)
}

/// Checks the configuration for MySQL: the dotted key, and what is wrong with its remedy. Does no IO.
pub fn unfit<'a>(
    url: &SecretString,
    ca_file: Option<&Path>,
    definitions: impl IntoIterator<Item = &'a Definition>,
) -> Vec<(String, String)> {
    let address = options(url, ca_file).err().map(|(key, what)| (key.to_owned(), what));
    address.into_iter().chain(definitions.into_iter().flat_map(layout::unfit)).collect()
}

/// # Errors
/// The key that is wrong, and why; without the address, which contains a password.
fn options(url: &SecretString, ca_file: Option<&Path>) -> Result<Opts, (&'static str, String)> {
    let wrong = |what: String| ("mysql.url", what);
    let opts = Opts::from_url(url.expose_secret())
        .map_err(|error| wrong(format!("{error}; write it like mysql://user:password@127.0.0.1:3306/waybill")))?;
    if opts.db_name().is_none_or(str::is_empty) {
        return Err(wrong("names no database; write it like mysql://user:password@127.0.0.1:3306/waybill".into()));
    }
    let asked_for = opts.ssl_opts().cloned().or_else(|| ca_file.map(|_| SslOpts::default()));
    let tls =
        asked_for.map(|given| tls::options(given, ca_file)).transpose().map_err(|what| ("mysql.ca_file", what))?;
    // IPv6 addresses are in brackets there, and the resolver wants none.
    let host = opts.ip_or_hostname().trim_start_matches('[').trim_end_matches(']').to_owned();
    let constraints =
        PoolConstraints::new(1, CONNECTIONS_MAX).ok_or_else(|| wrong("pool limits are upside down".into()))?;
    let pool = PoolOpts::default()
        .with_constraints(constraints)
        .with_abs_conn_ttl(Some(CONNECTION_AGE_MAX))
        .with_abs_conn_ttl_jitter(Some(CONNECTION_AGE_JITTER))
        .with_inactive_connection_ttl(CONNECTION_IDLE_MAX)
        // A reset would discard the prepared statements. We leave no session state behind.
        .with_reset_connection(false);
    let opts = OptsBuilder::from_opts(opts)
        .ip_or_hostname(host)
        .ssl_opts(tls)
        .pool_opts(pool)
        .init(SESSION.to_vec())
        .stmt_cache_size(STATEMENTS_CACHED)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        // Otherwise a connection to 127.0.0.1 switches to the server's socket and bypasses a tunnel or proxy in
        // between.
        .prefer_socket(false);
    Ok(opts.into())
}

#[cfg(test)]
mod tests {
    use super::{LedgerPart, Mysql, unfit};
    use crate::sink::{ListQuery, SinkErrorClass};

    #[test]
    fn a_bad_address_is_the_operators_and_does_not_show_the_password() {
        for url in
            ["", "mysql://u:geheim@h", "mysql://u:geheim@h/", "http://u:geheim@h/db", "mysql://u:geheim@h/db?x=geheim"]
        {
            let url = url.to_owned().into();
            let error = Mysql::new(&url, Vec::new()).unwrap_err();
            assert!(error.text.starts_with("mysql.url: ") && !error.text.contains("geheim"), "{error}");
            let [(key, what)] = unfit(&url, None, []).try_into().unwrap();
            assert!(key == "mysql.url" && !what.contains("geheim"), "{key}: {what}");
            assert_eq!(error.class, SinkErrorClass::Operator);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("mysql://u:geheim@{}/db", listener.local_addr().unwrap());
        drop(listener);
        let mysql = Mysql::new(&url.into(), Vec::new()).unwrap();
        let error = mysql.ping().await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Unavailable);
        assert!(!format!("{error} {mysql:?}").contains("geheim"));
    }

    #[tokio::test]
    async fn futures_are_send() {
        fn movable(_: impl Send) {}
        let mysql = Mysql::new(&"mysql://u@127.0.0.1:1/db".to_owned().into(), Vec::new()).unwrap();
        let query = ListQuery::default();
        movable((
            mysql.prepare(),
            mysql.write::<crate::domain::Entry>(&[]),
            mysql.rights(),
            mysql.inspect(),
            mysql.shops(),
            mysql.ledger(LedgerPart { resource: "r", shop: "s", after: "", young_since: None, limit: 1 }),
            mysql.held("r", "s", "", 1),
            mysql.replay_some(super::ReplayScope { resource: "r", shop: None }, 1),
        ));
        movable((mysql.list("r", &query), mysql.get("r", "s", "1"), mysql.ping(), mysql.disconnect()));
    }
}
