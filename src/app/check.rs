//! `waybill check`, the external checks: tokens, first pages of each list, MySQL privileges, clock. Stores tokens,
//! nothing else.

use std::time::Duration;

use serde::Serialize;

use super::single_call::{Caller, Read, document_error, to_error};
use super::{App, is_initialized};
use crate::catalog::Definition;
use crate::catalog::coverage::{FieldDrift, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT};
use crate::config::Config;
use crate::domain::{ListParams, Mode, Next, Page, Shop, ShopState};
use crate::sink::Mysql;
use crate::sink::mysql::{Fault, Inspection, Rights, Severity, grant};
use crate::source::pages::{self, Parsed};
use crate::source::{Credentials, Position, SourceConfig, Walk};
use crate::store::StoreError;

const NO_SHOPS: &str =
    "none yet; register one with `waybill shops add`, or with POST /api/v1/shops while `waybill serve` runs";

/// Size of a statement beside the document itself, in bytes: columns repeat parts of it.
const SPARE_BYTES: u64 = 1 << 20;
/// A list whose budget requires a longer wait is skipped.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Result of a check. The names are part of the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckLevel {
    Ok,
    /// It works, but deserves attention.
    Warn,
    Fail,
}

/// A checked subject and its result; a failure names the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub subject: String,
    pub level: CheckLevel,
    pub text: String,
}

impl Finding {
    fn new(subject: impl Into<String>, level: CheckLevel, text: impl Into<String>) -> Finding {
        Finding { subject: subject.into(), level, text: text.into() }
    }

    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Ok, text)
    }

    pub fn warn(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Warn, text)
    }

    pub fn fail(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::new(subject, CheckLevel::Fail, text)
    }

    /// A finding from a result: ok or fail.
    pub fn of(subject: impl Into<String>, found: Result<String, String>) -> Finding {
        match found {
            Ok(text) => Finding::ok(subject, text),
            Err(text) => Finding::fail(subject, text),
        }
    }
}

impl App {
    /// Checks the configuration against the marketplace and MySQL.
    pub async fn check(config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        let opened = is_initialized(&config.data_dir).then(|| Caller::open(config));
        match opened {
            None => findings.push(Finding::ok("shops", NO_SHOPS)),
            Some(Ok(caller)) => check_shops(&caller, &mut findings).await,
            Some(Err(error)) if matches!(error.downcast_ref(), Some(StoreError::InUse { .. })) => {
                let what =
                    "not checked: a running waybill uses the store; ask its GET /api/v1/shops and /api/v1/status";
                findings.push(Finding::ok("shops", what));
            }
            Some(Err(error)) => findings.push(Finding::fail("store", format!("{error:#}"))),
        }
        if let Some(url) = &config.mysql_url {
            match Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone()) {
                Ok(mysql) => check_mysql(&mysql, &mut findings).await,
                Err(error) => findings.push(Finding::fail("mysql", error.text)),
            }
        } else {
            findings.push(Finding::ok("sink", "the embedded archive (no mysql.url)"));
        }
        findings
    }
}

async fn check_shops(caller: &Caller<'_>, findings: &mut Vec<Finding>) {
    let shops = match caller.store.shops() {
        Ok(shops) => shops,
        Err(error) => return findings.push(Finding::fail("shops", error.to_string())),
    };
    if shops.is_empty() {
        findings.push(Finding::ok("shops", NO_SHOPS));
    }
    for shop in shops {
        // Paused and refused shops are never called; repeated logins of a refused client may get it blocked.
        match shop.state {
            ShopState::Active => {}
            ShopState::Paused => {
                findings.push(Finding::ok(format!("shop {}", shop.name), "paused, so it is not called"));
                continue;
            }
            ShopState::Refused => {
                let remedy = "its credentials were refused; it is not called until it has a new secret: waybill shops rotate {id}";
                findings.push(Finding::fail(format!("shop {}", shop.name), remedy.replace("{id}", &shop.id)));
                continue;
            }
        }
        let credentials = match caller.credentials(&shop) {
            Ok(credentials) => credentials,
            Err(error) => {
                findings.push(Finding::fail(format!("shop {}", shop.name), error.to_string()));
                continue;
            }
        };
        let proved = caller.source.prove(&credentials).await;
        let is_proved = proved.is_ok();
        // Without a login host, the first page shows whether the credentials work.
        if caller.source.has_logins() {
            let token = proved.map(|()| "the login host issued one".to_owned());
            findings.push(Finding::of(format!("shop {}: token", shop.name), token.map_err(|error| error.to_string())));
        }
        if is_proved {
            check_pages(caller, &credentials, &shop, findings).await;
        }
    }
}

/// Checks the first pages of the shop's lists, and the clock by their `Date`.
async fn check_pages(caller: &Caller<'_>, credentials: &Credentials, shop: &Shop, findings: &mut Vec<Finding>) {
    let mut skew = None;
    for definition in caller.config.definitions.iter().filter(|definition| shop.syncs(&definition.name)) {
        // A child list needs the id of a parent, which is not known.
        if definition.parent.is_some() {
            continue;
        }
        let mut pages = PageTest { caller, credentials, shop, definition, skew: None };
        let found = pages.run().await;
        skew = skew.or(pages.skew);
        findings.push(Finding::of(format!("shop {}: page of {}", shop.name, definition.name), found));
    }
    if let Some(skew) = skew.map(i64::abs) {
        let seconds = skew / 1000;
        let found = if seconds <= 5 {
            Ok(format!("within {} s of the marketplace's", seconds.max(1)))
        } else {
            Err(format!(
                "{seconds} s off the marketplace's clock; let the system keep time (systemd-timesyncd or chrony)"
            ))
        };
        findings.push(Finding::of("clock", found));
    }
}

/// A problem with the times of a page, if there is one.
fn times(definition: &Definition, page: &Parsed<Page>) -> Option<String> {
    let name = &definition.name;
    if let Some(at) = &definition.list.time
        && !page.value.rows.is_empty()
        && page.value.rows.iter().all(|row| row.time.is_none())
    {
        let what = format!("{name}: no row on its first page has a readable time at {at} (list.time)");
        let lacks_offset =
            |left: &FieldDrift| matches!(left, FieldDrift::Untimed { kind, .. } if *kind == WITHOUT_OFFSET);
        return Some(if page.drift.iter().any(lacks_offset) {
            format!("{what}: {WITHOUT_OFFSET_HINT}, in [resource.{name}]")
        } else {
            format!("{what}; it must be RFC 3339, or seconds or milliseconds since 1970")
        });
    }
    page.drift.iter().find_map(|left| match left {
        FieldDrift::TypeMismatch { table, column, kind } if *kind == WITHOUT_OFFSET => Some(format!(
            "{table}.{column} would be NULL: {WITHOUT_OFFSET_HINT}, in the column or in [resource.{name}]"
        )),
        _ => None,
    })
}

/// Rows of a page whose documents are asked for until one is found: the first may be gone.
const DOCUMENTS_MAX: usize = 3;

/// Checks that a list matches its definition, that its first page leads to a second, and that its rows have documents.
struct PageTest<'a> {
    caller: &'a Caller<'a>,
    credentials: &'a Credentials,
    shop: &'a Shop,
    definition: &'a Definition,
    /// How far the API's clock is ahead, in milliseconds.
    skew: Option<i64>,
}

impl PageTest<'_> {
    async fn run(&mut self) -> Result<String, String> {
        let Some(combination) = self.definition.list.combinations.first() else { return Ok("no list".to_owned()) };
        let (first, found) = self.pages(combination).await?;
        Ok(match self.document(&first).await? {
            Some(document) => format!("{found}; {document}"),
            None => found,
        })
    }

    /// Reads the document of one of these rows, where the list has no documents itself.
    async fn document(&self, page: &Page) -> Result<Option<String>, String> {
        let Some(endpoint) = self.definition.detail_endpoint() else { return Ok(None) };
        let wait = self.caller.wait_for(self.shop, &endpoint.path).map_err(|error| error.to_string())?;
        if wait > WAIT_MAX {
            return Ok(Some(format!(
                "its documents were not checked: their rate rule allows no call for {} s",
                wait.as_secs()
            )));
        }
        let mut failed = None;
        for row in page.rows.iter().take(DOCUMENTS_MAX) {
            let who = (self.shop, self.credentials);
            let read = self.caller.document(who, self.definition, &row.id).await.map_err(|error| error.to_string())?;
            let (path, error) = match read {
                Read { path, result: Ok(_) } => return Ok(Some(format!("{path} answers with a document"))),
                Read { path, result: Err(error) } => (path, error),
            };
            let is_about_all = error.cause().class.concerns_all_calls();
            failed = failed.or_else(|| Some(document_error(self.definition, &path, &error)));
            if is_about_all {
                break;
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The first page, and what was found on it and the second.
    async fn pages(&mut self, combination: &ListParams) -> Result<(Page, String), String> {
        let walk = Walk { mode: Mode::Full, started_at: self.caller.store.clock().now(), since: None, parent: None };
        let position = Position::begin(self.definition, walk);
        let wait = self.caller.wait_for(self.shop, &self.definition.list.path).map_err(|error| error.to_string())?;
        if wait > WAIT_MAX {
            let found = format!("not checked: its rate rule allows no call for {} s", wait.as_secs());
            return Ok((Page::empty(Next::End), found));
        }
        let parsed = self.page(combination, &position, None).await?;
        let first = &parsed.value;
        if let (true, Some(rejected)) = (first.rows.is_empty(), first.rejected.first()) {
            let what = format!("none of the {} rows on the first page can be stored: ", first.rejected.len());
            return Err(what + &rejected.reason);
        }
        if let Some(wrong) = times(self.definition, &parsed) {
            return Err(wrong);
        }
        let rows = first.rows.len() + first.rejected.len();
        let found = format!("{rows} rows on the first page of {}", self.definition.name);
        let Next::More { cursor } = &first.next else { return Ok((parsed.value, found)) };
        let position = Position::read(2, cursor.as_deref()).map_err(|error| error.to_string())?;
        // The next window of days is a different list.
        if position.is_first() {
            return Ok((parsed.value, found));
        }
        let wrong = |what: String| format!("the second page: {what}");
        let second = self.page(combination, &position, Some(&first.digest)).await.map_err(wrong)?.value;
        if second.digest == first.digest && rows > 0 {
            let line = format!("end = {{ repeat = true }} to [resource.{}.list]", self.definition.name);
            return Err(wrong(format!(
                "it repeats the first page; check the page parameter. If the API repeats its last page after the end, \
                 add {line}"
            )));
        }
        let found = format!("{found}, {} on the second", second.rows.len() + second.rejected.len());
        Ok((parsed.value, found))
    }

    async fn page(
        &mut self,
        combination: &ListParams,
        position: &Position,
        previous: Option<&str>,
    ) -> Result<Parsed<Page>, String> {
        let now = self.caller.store.clock().now();
        let call = pages::list_call(self.definition, combination, position, now);
        let outcome = self.caller.call(self.shop, self.credentials, &call).await.map_err(|error| error.to_string())?;
        self.skew = self.skew.or(outcome.quota.clock_ahead_ms);
        let page = match &outcome.result {
            Ok(body) => {
                let answer = pages::Answer { body, next_link: outcome.next_link.as_deref(), previous };
                pages::page(self.definition, position, answer, |_| None)
            }
            Err(error) => pages::end_by_status(self.definition, position, error, |_| None).ok_or_else(|| error.clone()),
        };
        let page = page.map_err(|error| to_error(&error).to_string())?;
        match page.value.doubt {
            Some(doubt) => Err(doubt),
            None => Ok(page),
        }
    }
}

async fn check_mysql(mysql: &Mysql, findings: &mut Vec<Finding>) {
    match mysql.rights().await {
        Ok(rights) => {
            let found = format!("{}, packets up to {} bytes", rights.server_version, rights.max_allowed_packet);
            findings.push(Finding::ok("mysql", found));
            findings.push(Finding::of("mysql: rights", user_rights(&rights)));
            findings.extend(packet_room(&rights));
            // A missing privilege is reported once.
            if rights.lacks_for_rows.is_empty() {
                match mysql.inspect().await {
                    Ok(inspection) => check_tables(inspection, findings),
                    Err(error) => findings.push(Finding::fail("mysql: writes", error.text)),
                }
            }
        }
        Err(error) => findings.push(Finding::fail("mysql", error.text)),
    }
    if let Err(error) = mysql.disconnect().await {
        tracing::debug!(%error, "failed to close the connections to MySQL");
    }
}

/// Reports faults of the tables, and whether test rows can be written.
fn check_tables(inspection: Inspection, findings: &mut Vec<Finding>) {
    for Fault { severity, text, .. } in inspection.faults {
        let level = if severity == Severity::Notice { CheckLevel::Warn } else { CheckLevel::Fail };
        findings.push(Finding::new("mysql: table", level, text));
    }
    if !inspection.written.is_empty() {
        let text = format!("test rows were written to {} and rolled back", inspection.written.join(", "));
        findings.push(Finding::ok("mysql: writes", text));
    }
}

/// Warns if the server accepts smaller packets than the largest document.
fn packet_room(rights: &Rights) -> Option<Finding> {
    let read_max = SourceConfig::BODY_MAX as u64;
    let text = format!(
        "max_allowed_packet is {} bytes, but documents may have up to {read_max} bytes: those that the server rejects \
         are parked; run SET GLOBAL max_allowed_packet = {}",
        rights.max_allowed_packet,
        2 * read_max,
    );
    (rights.max_allowed_packet < read_max + SPARE_BYTES).then(|| Finding::warn("mysql: packets", text))
}

/// Checks the privileges of the user, who needs none to create tables once they all exist.
fn user_rights(rights: &Rights) -> Result<String, String> {
    let missing = rights.missing_tables.first();
    // Only the privileges that are needed now, in one statement.
    let for_tables = rights.lacks_for_tables.iter().filter(|_| missing.is_some());
    let lacks: Vec<&str> = rights.lacks_for_rows.iter().chain(for_tables).copied().collect();
    let statement = |lacks: &[&str]| grant(&lacks.join(", "), &rights.database, &rights.account);
    match (lacks.as_slice(), missing) {
        ([], _) if rights.lacks_for_tables.is_empty() => {
            Ok("the user may read and write rows, and create and change tables".to_owned())
        }
        ([], _) => Ok(format!(
            "the user may read and write rows; all tables are there; the user lacks {}, so new columns and tables \
             must be created by hand: `waybill schema print` shows them",
            rights.lacks_for_tables.join(" and ")
        )),
        (lacks, Some(first)) if !rights.lacks_for_tables.is_empty() => Err(format!(
            "table `{first}` is missing, and the user lacks {}; run {}; or create the tables as another user with the output of \
             `waybill schema print`",
            lacks.join(", "),
            statement(lacks)
        )),
        (lacks, _) => Err(format!("the user lacks {}; run {}", lacks.join(", "), statement(lacks))),
    }
}

#[cfg(test)]
mod tests {
    use super::user_rights;
    use crate::sink::mysql::Rights;

    #[test]
    fn missing_privileges_are_one_failure_with_one_grant() {
        let rights = |rows: &[&'static str], tables: &[&'static str], missing: &[&str]| {
            user_rights(&Rights {
                server_version: "10.11".into(),
                account: "'w'@'%'".into(),
                database: "`shops`".into(),
                sql_mode: String::new(),
                max_allowed_packet: 1,
                lacks_for_rows: rows.to_vec(),
                lacks_for_tables: tables.to_vec(),
                missing_tables: missing.iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        assert!(rights(&[], &[], &["shipments"]).is_ok());
        assert!(rights(&[], &["CREATE"], &[]).unwrap().contains("lacks CREATE"));
        let said = rights(&["INSERT"], &["CREATE", "ALTER"], &["shipments"]).unwrap_err();
        assert!(
            said.contains("`shipments`") && said.contains("GRANT INSERT, CREATE, ALTER ON `shops`.* TO 'w'@'%'"),
            "{said}"
        );
        let said = rights(&["INSERT", "DELETE"], &["CREATE"], &[]).unwrap_err();
        assert!(said.contains("GRANT INSERT, DELETE ON `shops`.* TO 'w'@'%'"), "{said}");
    }
}
