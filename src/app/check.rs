//! `waybill check`, the external checks: tokens, first pages of each list, MySQL privileges, clock. Stores tokens,
//! nothing else.

use std::time::Duration;

use jiff::SignedDuration;

use super::check_columns::Samples;
use super::check_mysql::{check_mysql, shops_to_restore};
use super::finding::Finding;
use super::single_call::{Caller, Identity, Read, document_error, to_error};
use super::{App, is_initialized};
use crate::catalog::Definition;
use crate::catalog::coverage::{FieldDrift, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT};
use crate::config::Config;
use crate::domain::{ListParams, Mode, Next, OtherSource, Page, Shop, ShopState, counted};
use crate::sink::Mysql;
use crate::sink::mysql::SourceClaim;
use crate::source::pages::{self, Parsed};
use crate::source::{Position, Walk};
use crate::store::StoreError;

/// A list whose budget requires a longer wait is skipped.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl App {
    /// Checks the configuration against the marketplace and MySQL.
    pub async fn check(config: &Config) -> Vec<Finding> {
        let mut findings = Vec::new();
        let opened = is_initialized(&config.data_dir).then(|| Caller::open(config));
        let adopts = match &opened {
            None => false,
            Some(Ok(caller)) => !caller.store.is_unused().unwrap_or(true),
            Some(Err(_)) => true,
        };
        let claim = SourceClaim { origin: config.source.origin(), adopts };
        let mysql = config.mysql_url.as_ref();
        let mysql = mysql.map(|url| Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone()));
        let mysql = mysql.map(|mysql| mysql.map(|mysql| mysql.claimed_by(claim)));
        let reachable = mysql.as_ref().and_then(|mysql| mysql.as_ref().ok());
        let other = match reachable {
            // What else is wrong with MySQL is reported below.
            Some(mysql) => mysql.other_source().await.unwrap_or(None),
            None => None,
        };
        if let Some(other) = &other {
            findings.push(Finding::fail("source", other.to_string()));
        }
        match opened {
            // Nothing is called, and no shop taken over.
            None | Some(Ok(_)) if other.is_some() => {}
            None => findings.push(shops_to_restore(config, None, reachable).await),
            Some(Ok(caller)) => {
                check_shops(&caller, reachable, &mut findings).await;
                findings.push(check_master_key(&caller, reachable).await);
                findings.extend(mysql.as_ref().and_then(|_| check_archive(&caller)));
            }
            Some(Err(error)) if matches!(error.downcast_ref(), Some(StoreError::InUse { .. })) => {
                let what =
                    "not checked: a running waybill uses the store; ask its GET /api/v1/shops and /api/v1/status";
                findings.push(Finding::ok("shops", what));
            }
            Some(Err(error)) => {
                let is_other = error.downcast_ref::<OtherSource>().is_some();
                findings.push(Finding::fail(if is_other { "source" } else { "store" }, format!("{error:#}")));
            }
        }
        match mysql {
            Some(Ok(mysql)) => check_mysql(&mysql, &mut findings).await,
            Some(Err(error)) => findings.push(Finding::fail("mysql", error.text)),
            None => findings.push(Finding::ok("sink", "the embedded archive (no mysql.url)")),
        }
        findings
    }
}

/// Which master key is in use, and how far a rotation of it is.
async fn check_master_key(caller: &Caller<'_>, mysql: Option<&Mysql>) -> Finding {
    let id = caller.store.master_key_id();
    if !caller.is_rotating {
        return Finding::ok("master key", format!("{id} opens the data directory"));
    }
    let rows = match mysql {
        Some(mysql) => mysql.shops_if_any().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let left = rows.iter().filter(|row| !caller.store.is_sealed_with_master(&row.sealed)).count();
    let text = format!(
        "its rotation to {id} is not finished: {left} of {} are sealed with the old key in MySQL; `waybill serve` or \
         `waybill keys rotate-master` finishes it",
        counted(rows.len(), "shop", "shops")
    );
    Finding::warn("master key", text)
}

/// Documents of the archive that do not move to MySQL, since their resources are not configured; none: there are none.
fn check_archive(caller: &Caller<'_>) -> Option<Finding> {
    let configured: Vec<String> = caller.config.definitions.iter().map(|definition| definition.name.clone()).collect();
    let left = caller.store.archived_resources_but(&configured);
    let counted_left = left.and_then(|left| Ok((caller.store.count_archived(&left)?, left)));
    let (count, left) = match counted_left {
        Ok((_, left)) if left.is_empty() => return None,
        Ok(found) => found,
        Err(error) => return Some(Finding::fail("archive", error.to_string())),
    };
    let text = format!(
        "{} of resources that are not configured ({}) are in the embedded archive: they do not move to MySQL; add \
         these resources to `resources`, and the next start moves them",
        counted(count, "document", "documents"),
        left.join(", ")
    );
    Some(Finding::warn("archive", text))
}

/// The shops; those of one name get their ids beside it.
fn distinct(mut shops: Vec<Shop>) -> Vec<Shop> {
    let names: Vec<String> = shops.iter().map(|shop| shop.name.clone()).collect();
    for shop in &mut shops {
        if names.iter().filter(|name| **name == shop.name).count() > 1 {
            shop.name = format!("{} ({})", shop.name, shop.id);
        }
    }
    shops
}

async fn check_shops(caller: &Caller<'_>, mysql: Option<&Mysql>, findings: &mut Vec<Finding>) {
    let shops = match caller.store.shops() {
        Ok(shops) => shops,
        Err(error) => return findings.push(Finding::fail("shops", error.to_string())),
    };
    if shops.is_empty() {
        // Only a new store is filled from MySQL.
        let mysql = mysql.filter(|_| caller.store.is_blank().unwrap_or(true));
        findings.push(shops_to_restore(caller.config, Some(&caller.store), mysql).await);
    }
    for unrestored in caller.store.unrestored_shops().unwrap_or_default() {
        let id = &unrestored.id;
        let what = format!(
            "MySQL has it as shop {id}, and it is not restored: {}. Adopt it with its client secret (`waybill shops adopt \
             {id}`), or delete its rows (`waybill shops remove {id} --purge`)",
            unrestored.fault
        );
        findings.push(Finding::fail(format!("shop {}", unrestored.name), what));
    }
    let mut samples = Samples::default();
    for shop in distinct(shops) {
        // Paused and refused shops are never called; repeated logins of a refused client may get it blocked.
        match shop.state {
            ShopState::Active => {}
            ShopState::Paused => {
                findings.push(Finding::ok(format!("shop {}", shop.name), "paused, so it is not called"));
                continue;
            }
            ShopState::Refused => {
                let remedy = "its credentials were refused, so it is not called: if its account was off and is on again, \
                    `waybill shops resume {id}` tries its secret again; if the secret changed, `waybill shops rotate {id}` \
                    gives it the new one";
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
            let identity = Identity { shop: &shop, credentials: &credentials };
            check_pages(caller, identity, &mut samples, findings).await;
        }
    }
    samples.add_stored(caller, mysql).await;
    findings.extend(samples.findings(caller.config));
}

/// Checks the first pages of the shop's lists, and the clock by their `Date`.
async fn check_pages(caller: &Caller<'_>, identity: Identity<'_>, samples: &mut Samples, findings: &mut Vec<Finding>) {
    let shop = identity.shop;
    let mut skew = None;
    for definition in caller.config.definitions.iter().filter(|definition| shop.syncs(&definition.name)) {
        // A child list needs the id of a parent, which is not known.
        if definition.parent.is_some() {
            continue;
        }
        let mut pages = PageTest { caller, identity, definition, samples, skew: None };
        let found = pages.run().await;
        skew = skew.or(pages.skew);
        findings.push(Finding::of(format!("shop {}: page of {}", shop.name, definition.name), found));
    }
    if let Some(skew) = skew {
        let seconds = skew.unsigned_abs().as_secs();
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
    None
}

/// Rows of a page whose documents are read: the first may be gone, and several show more about the columns.
const DOCUMENTS_MAX: usize = 3;

/// Checks that a list matches its definition, that its first page leads to a second, and that its rows have documents.
struct PageTest<'a> {
    caller: &'a Caller<'a>,
    identity: Identity<'a>,
    definition: &'a Definition,
    samples: &'a mut Samples,
    /// How far the API's clock is ahead.
    skew: Option<SignedDuration>,
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

    /// Reads documents of these rows, where the list has no documents itself.
    async fn document(&mut self, page: &Page) -> Result<Option<String>, String> {
        let Some(detail) = &self.definition.detail else { return Ok(None) };
        let (caller, shop) = (self.caller, self.identity.shop);
        let wait = || caller.wait_for(shop, &detail.path).map_err(|error| error.to_string());
        if wait()? > WAIT_MAX {
            return Ok(Some(format!(
                "its documents were not checked: their rate rule allows no call for {} s",
                wait()?.as_secs()
            )));
        }
        let (mut found, mut failed) = (None, None);
        for row in page.rows.iter().take(DOCUMENTS_MAX) {
            // One proves the call; nothing is waited for to see more of them.
            let most = if found.is_some() { Duration::ZERO } else { WAIT_MAX };
            if wait()? > most {
                break;
            }
            let read = self.caller.document(self.identity, self.definition, &row.id).await;
            let Read { path, result } = read.map_err(|error| error.to_string())?;
            match result {
                Ok(document) => {
                    self.samples.add(self.definition, &shop.id, &row.id, &document);
                    found.get_or_insert(format!("{path} answers with a document"));
                }
                Err(error) => {
                    failed = failed.or_else(|| Some(document_error(self.definition, &path, &error)));
                    if error.cause().class.concerns_all_calls() {
                        break;
                    }
                }
            }
        }
        found.map(|found| Ok(Some(found))).or_else(|| failed.map(Err)).unwrap_or(Ok(None))
    }

    /// The first page, and what was found on it and the second.
    async fn pages(&mut self, combination: &ListParams) -> Result<(Page, String), String> {
        let walk = Walk { mode: Mode::Full, started_at: self.caller.store.clock().now(), since: None, parent: None };
        let position = Position::begin(self.definition, walk);
        let wait =
            self.caller.wait_for(self.identity.shop, &self.definition.list.path).map_err(|error| error.to_string())?;
        if wait > WAIT_MAX {
            let found = format!("not checked: its rate rule allows no call for {} s", wait.as_secs());
            return Ok((Page::empty(Next::End), found));
        }
        let parsed = self.page(combination, &position, None).await?;
        self.note(&parsed.value);
        let first = &parsed.value;
        if let (true, Some(rejected)) = (first.rows.is_empty(), first.rejected.first()) {
            let what = format!("none of the {} rows on the first page can be stored: ", first.rejected.len());
            return Err(what + &rejected.reason);
        }
        if let Some(wrong) = times(self.definition, &parsed) {
            return Err(wrong);
        }
        let rows = first.rows.len() + first.rejected.len();
        let found = format!("{} on the first page of {}", counted(rows, "row", "rows"), self.definition.name);
        let Next::More { cursor } = &first.next else { return Ok((parsed.value, found)) };
        let position = Position::read(2, cursor.as_deref()).map_err(|error| error.to_string())?;
        // The next window of days is a different list.
        if position.is_first() {
            return Ok((parsed.value, found));
        }
        let wrong = |what: String| format!("the second page: {what}");
        let second = self.page(combination, &position, Some(&first.digest)).await.map_err(wrong)?.value;
        self.note(&second);
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

    /// Looks at the documents on a page.
    fn note(&mut self, page: &Page) {
        for row in &page.rows {
            if let Some(document) = &row.body {
                self.samples.add(self.definition, &self.identity.shop.id, &row.id, document);
            }
        }
    }

    async fn page(
        &mut self,
        combination: &ListParams,
        position: &Position,
        previous: Option<&str>,
    ) -> Result<Parsed<Page>, String> {
        let now = self.caller.store.clock().now();
        let call = pages::list_call(self.definition, combination, position, now);
        let outcome = self.caller.call(self.identity, &call).await.map_err(|error| error.to_string())?;
        self.skew = self.skew.or(outcome.quota.clock_ahead);
        let page = match &outcome.result {
            Ok(body) => {
                let answer = pages::ListResponse { body, next_link: outcome.next_link.as_deref(), previous };
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
