//! `waybill check`, the outside half: tokens, one page, MySQL rights, the clock. Changes nothing but the
//! tokens it keeps.

use std::sync::Arc;

use super::call::{Caller, told};
use super::{App, is_begun};
use crate::catalog::Definition;
use crate::catalog::coverage::{Left, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT};
use crate::config::Config;
use crate::domain::{Mode, Shop, ShopState};
use crate::sink::Mysql;
use crate::sink::mysql::{Fault, Inspection, Rights, Severity};
use crate::source::pages::{self, ParsedPage};
use crate::source::{Credentials, Position, SourceConfig, Walk};
use crate::store::StoreError;

const NO_SHOPS: &str = "none yet; register one with `waybill shops add` or POST /api/v1/shops";

/// Begins a text about what is no failure, and worth a look.
pub const WARNING: &str = "warning: ";
/// What a statement holds beside a document, and the columns that repeat parts of it.
const SPARE_BYTES: u64 = 1 << 20;

/// What was looked at; and how it is, or what is wrong and the mend.
pub type Finding = (String, Result<String, String>);

impl App {
    /// Asks the marketplace and MySQL whether this configuration would work.
    pub async fn probe(config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        let opened = is_begun(&config.data_dir).then(|| Caller::open(config));
        match opened {
            None => findings.push(("shops".to_owned(), Ok(NO_SHOPS.to_owned()))),
            Some(Ok(caller)) => probe_shops(&caller, &mut findings).await,
            Some(Err(error)) if matches!(error.downcast_ref(), Some(StoreError::InUse { .. })) => {
                let what = "a running waybill has it, whose GET /api/v1/shops and /api/v1/status tell of them";
                findings.push(("shops".to_owned(), Ok(what.to_owned())));
            }
            Some(Err(error)) => findings.push(("store".to_owned(), Err(format!("{error:#}")))),
        }
        if let Some(url) = &config.mysql_url {
            match Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone()) {
                Ok(mysql) => probe_mysql(&mysql, &mut findings).await,
                Err(error) => findings.push(("mysql".to_owned(), Err(error.text))),
            }
        } else {
            findings.push(("sink".to_owned(), Ok("the embedded archive (no mysql.url)".to_owned())));
        }
        findings
    }
}

async fn probe_shops(caller: &Caller<'_>, findings: &mut Vec<Finding>) {
    let shops = match caller.store.shops() {
        Ok(shops) => shops,
        Err(error) => return findings.push(("shops".to_owned(), Err(error.to_string()))),
    };
    if shops.is_empty() {
        findings.push(("shops".to_owned(), Ok(NO_SHOPS.to_owned())));
    }
    for shop in shops {
        // Nothing is called for it, by nobody; and a refused client may be blocked if it is asked for again and again.
        match shop.state {
            ShopState::Active => {}
            ShopState::Paused => {
                findings.push((format!("shop {}", shop.name), Ok("paused, and so not asked for".to_owned())));
                continue;
            }
            ShopState::Refused => {
                let mend = "its client was refused, and is not asked for again before it has a new secret (PATCH /api/v1/shops/{id})";
                findings.push((format!("shop {}", shop.name), Err(mend.replace("{id}", &shop.id))));
                continue;
            }
        }
        let credentials = match caller.credentials(&shop) {
            Ok(credentials) => credentials,
            Err(error) => {
                findings.push((format!("shop {}", shop.name), Err(error.to_string())));
                continue;
            }
        };
        let proved = caller.source.prove(&credentials).await;
        let is_proved = proved.is_ok();
        // Where there is no login host, the page shows whether they are good.
        if caller.source.has_logins() {
            let token = proved.map(|()| "the login host gave one".to_owned());
            findings.push((format!("shop {}: token", shop.name), token.map_err(|error| error.to_string())));
        }
        if is_proved {
            probe_page(caller, &credentials, &shop, findings).await;
        }
    }
}

/// One list page of the first resource; the answer's clock comes with it.
async fn probe_page(caller: &Caller<'_>, credentials: &Credentials, shop: &Shop, findings: &mut Vec<Finding>) {
    let takes = |definition: &&Arc<Definition>| shop.takes(&definition.name) && definition.parent.is_none();
    let Some(definition) = caller.config.definitions.iter().find(takes) else { return };
    let Some(combination) = definition.list.combinations.first() else { return };
    let walk = Walk { mode: Mode::Full, started_at: caller.store.clock().now(), since: None, parent: None };
    let position = Position::begin(definition, walk);
    let call = pages::list_call(definition, combination, &position, caller.store.clock().now());
    let outcome = match caller.call(shop, credentials, &call).await {
        Ok(outcome) => outcome,
        Err(error) => return findings.push((format!("shop {}: page", shop.name), Err(error.to_string()))),
    };
    let next_link = outcome.next_link.as_deref();
    let page = outcome
        .result
        .and_then(|body| pages::page(definition, &position, pages::Answer { body: &body, next_link }, |_| None));
    let found = match page {
        Ok(page) => match times(definition, &page) {
            Some(wrong) => Err(wrong),
            None => Ok(format!("{} rows on the first page of {}", page.rows.len(), definition.name)),
        },
        Err(error) => Err(told(&error).to_string()),
    };
    findings.push((format!("shop {}: page", shop.name), found));
    if let Some(skew) = outcome.quota.clock_ahead_ms {
        let seconds = skew.abs() / 1000;
        let found = if seconds <= 5 {
            Ok(format!("within {} s of the marketplace's", seconds.max(1)))
        } else {
            Err(format!(
                "{seconds} s off the marketplace's clock; let the system keep time (systemd-timesyncd or chrony)"
            ))
        };
        findings.push(("clock".to_owned(), found));
    }
}

/// What is wrong with the times of a page; none: nothing.
fn times(definition: &Definition, page: &ParsedPage) -> Option<String> {
    let name = &definition.name;
    if let Some(at) = &definition.list.time
        && !page.rows.is_empty()
        && page.rows.iter().all(|row| row.time.is_none())
    {
        let what = format!("{name}: no row on its first page has a time that can be read at {at} (list.time)");
        let lacks_offset = |left: &Left| matches!(left, Left::Untimed { kind, .. } if *kind == WITHOUT_OFFSET);
        return Some(if page.left.iter().any(lacks_offset) {
            format!("{what}: {WITHOUT_OFFSET_HINT}, in [resource.{name}]")
        } else {
            format!("{what}; it must be RFC 3339, or seconds or milliseconds since 1970")
        });
    }
    page.left.iter().find_map(|left| match left {
        Left::Misfit { table, column, kind } if *kind == WITHOUT_OFFSET => Some(format!(
            "{table}.{column} would be NULL: {WITHOUT_OFFSET_HINT}, in the column or in [resource.{name}]"
        )),
        _ => None,
    })
}

async fn probe_mysql(mysql: &Mysql, findings: &mut Vec<Finding>) {
    match mysql.rights().await {
        Ok(rights) => {
            findings.push((
                "mysql".to_owned(),
                Ok(format!("{}, packets up to {} bytes", rights.server_version, rights.max_allowed_packet)),
            ));
            findings.push(("mysql: tables".to_owned(), table_rights(&rights)));
            findings.push(("mysql: rows".to_owned(), row_rights(&rights)));
            findings.extend(packet_room(&rights));
            match mysql.inspect().await {
                Ok(inspection) => probe_tables(inspection, findings),
                Err(error) => findings.push(("mysql: writes".to_owned(), Err(error.text))),
            }
        }
        Err(error) => findings.push(("mysql".to_owned(), Err(error.text))),
    }
    if let Err(error) = mysql.disconnect().await {
        tracing::debug!(%error, "closing the connections to MySQL");
    }
}

/// What is wrong with the tables that are there, and whether they take what the writer writes.
fn probe_tables(inspection: Inspection, findings: &mut Vec<Finding>) {
    for Fault { severity, text, .. } in inspection.faults {
        let found = if severity == Severity::Notice { Ok(format!("{WARNING}{text}")) } else { Err(text) };
        findings.push(("mysql: table".to_owned(), found));
    }
    if !inspection.written.is_empty() {
        let text = format!("made-up documents of {} were taken, and rolled back", inspection.written.join(", "));
        findings.push(("mysql: writes".to_owned(), Ok(text)));
    }
}

/// Whether the server takes documents as large as we read them.
fn packet_room(rights: &Rights) -> Option<Finding> {
    let read_max = SourceConfig::BODY_MAX as u64;
    let text = format!(
        "{WARNING}max_allowed_packet is {} bytes, and documents of up to {read_max} are read: larger ones than the server \
         takes are parked; run SET GLOBAL max_allowed_packet = {}",
        rights.max_allowed_packet,
        2 * read_max,
    );
    (rights.max_allowed_packet < read_max + SPARE_BYTES).then(|| ("mysql: packets".to_owned(), Ok(text)))
}

/// Who may not make tables can do without, once somebody else made them.
fn table_rights(rights: &Rights) -> Result<String, String> {
    let lacks = rights.lacks_for_tables.join(" and ");
    match rights.missing_tables.as_slice() {
        _ if lacks.is_empty() => Ok("the user may make and change tables".to_owned()),
        [] => Ok(format!(
            "all are there; the user lacks {lacks}, so what a definition gains is to be made by hand: `waybill schema \
             print` shows it"
        )),
        [first, ..] => Err(format!(
            "`{first}` is not there and the user lacks {lacks}; grant it for its database, or run what `waybill schema \
             print` prints as another user"
        )),
    }
}

fn row_rights(rights: &Rights) -> Result<String, String> {
    match rights.lacks_for_rows.as_slice() {
        [] => Ok("the user may read and write them".to_owned()),
        lacks => Err(format!("the user lacks {}; grant it for its database", lacks.join(", "))),
    }
}
