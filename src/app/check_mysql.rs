//! The part of `waybill check` about MySQL: rights, tables, test writes, and the shops that a new data directory gets
//! from it.

use super::finding::{CheckLevel, Finding};
use super::master_key;
use crate::config::{Config, MasterKeySource};
use crate::domain::{Shop, counted};
use crate::sink::Mysql;
use crate::sink::mysql::{Inspection, MirroredShop, PlannedChange, Rights, Severity, TableFault, grant};
use crate::source::SourceConfig;
use crate::store::{self, Restored, RowFault, Store};

/// Size of a statement beside the document itself, in bytes: columns repeat parts of it.
const SPARE_BYTES: u64 = 1 << 20;
/// Nothing is registered, here or in MySQL.
const NO_SHOPS: &str =
    "none yet; register one with `waybill shops add`, or with POST /api/v1/shops while `waybill serve` runs";

/// What is said of the shops of a data directory that has none: a start restores those of MySQL. `store`: the opened
/// one, if there is one.
pub(super) async fn shops_to_restore(config: &Config, store: Option<&Store>, mysql: Option<&Mysql>) -> Finding {
    let Some(mysql) = mysql else { return Finding::ok("shops", NO_SHOPS) };
    let shops = match mysql.shops_if_any().await {
        Ok(shops) => shops,
        Err(_) => {
            let what =
                "none here; MySQL may have some, which the next start restores, but it cannot be read now: see below";
            return Finding::warn("shops", what);
        }
    };
    match faults(config, store, &shops) {
        Ok(faults) if faults.is_empty() && shops.is_empty() => Finding::ok("shops", NO_SHOPS),
        Ok(faults) if faults.is_empty() => Finding::ok(
            "shops",
            format!("MySQL has {}; the next start restores them", counted(shops.len(), "shop", "shops")),
        ),
        Ok(faults) => Finding::fail("shops", unrestorable(config, shops.len(), &faults)),
        Err(error) => Finding::fail("shops", format!("the shops of MySQL cannot be restored: {error:#}")),
    }
}

/// What the next start cannot restore, and what to do.
fn unrestorable(config: &Config, shops: usize, faults: &[(Shop, RowFault)]) -> String {
    let count = counted(shops, "shop", "shops");
    let is_key = |fault: &RowFault| match fault {
        RowFault::OtherKey { .. } => true,
        // Where our key opens another row, this one is damaged.
        fault => fault.may_be_key() && faults.len() == shops,
    };
    let sealed = faults.iter().filter(|(_, fault)| is_key(fault)).count();
    if sealed > 0 {
        let key = match &config.master_key {
            MasterKeySource::Env(_) => "in WAYBILL_MASTER_KEY".to_owned(),
            MasterKeySource::File(file) => format!("in {}", file.display()),
        };
        return format!(
            "MySQL has {count}, and the next start cannot restore {sealed} of them: they are sealed with another master \
             key than the one {key}. Put the key there that they were registered with; if it is lost, adopt each with its \
             client secret: `waybill shops adopt ID` keeps its id and its rows"
        );
    }
    let named: Vec<String> =
        faults.iter().map(|(shop, fault)| format!("{} ({}): {fault}", shop.id, shop.name)).collect();
    format!(
        "MySQL has {count}, and the next start restores them but {}: {}. Adopt each with its client secret (`waybill \
         shops adopt ID`), or delete its rows (`waybill shops remove ID --purge`)",
        faults.len(),
        named.join("; ")
    )
}

/// The shops of MySQL that cannot be restored.
fn faults(config: &Config, store: Option<&Store>, rows: &[MirroredShop]) -> anyhow::Result<Vec<(Shop, RowFault)>> {
    let key = match store {
        Some(_) => None,
        None => master_key::existing(&config.master_key, &config.data_dir)?,
    };
    let mut faults = Vec::new();
    for MirroredShop { shop, sealed, unreadable } in rows {
        let fault = match (store, &key) {
            _ if unreadable.is_some() => Some(RowFault::Damaged),
            (Some(store), _) => match store.may_restore(shop, sealed)? {
                Restored::Unreadable(fault) => Some(fault),
                Restored::Yes | Restored::Here | Restored::Superseded | Restored::Deleted => None,
            },
            (None, Some(key)) => store::opens_shop(key, shop, sealed).err(),
            // The next start makes a new key, which opens nothing.
            (None, None) => Some(RowFault::OtherKey { id: String::new() }),
        };
        faults.extend(fault.map(|fault| (shop.clone(), fault)));
    }
    Ok(faults)
}

pub(super) async fn check_mysql(mysql: &Mysql, findings: &mut Vec<Finding>) {
    match mysql.rights().await {
        Ok(rights) => {
            let found = format!("{}, packets up to {} bytes", rights.server_version, rights.max_allowed_packet);
            findings.push(Finding::ok("mysql", found));
            findings.push(Finding::of("mysql: rights", user_rights(&rights)));
            findings.extend(packet_room(&rights));
            // A missing privilege is reported once.
            if rights.lacks_for_rows.is_empty() {
                match mysql.inspect().await {
                    Ok(inspection) => check_tables(inspection, &rights, findings),
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

/// Reports faults of the tables, what the next start changes, and whether test rows can be written.
fn check_tables(inspection: Inspection, rights: &Rights, findings: &mut Vec<Finding>) {
    for TableFault { severity, text, .. } in inspection.faults {
        let level = if severity == Severity::Notice { CheckLevel::Warn } else { CheckLevel::Fail };
        findings.push(Finding::new("mysql: table", level, text));
    }
    let (created, changed): (Vec<_>, Vec<_>) = inspection.planned.into_iter().partition(|plan| plan.what.is_none());
    // Without the right to create them, the rights have failed.
    if !created.is_empty() && rights.lacks_for_tables.is_empty() {
        let names: Vec<String> = created.iter().map(|plan| format!("`{}`", plan.table)).collect();
        let text = format!("{} will be created at the next start", names.join(", "));
        findings.push(Finding::ok("mysql: new tables", text));
    }
    findings.extend(changed.into_iter().filter_map(|plan| planned_change(&plan, rights)));
    if !inspection.written.is_empty() {
        let text = format!("test rows were written to {} and rolled back", inspection.written.join(", "));
        findings.push(Finding::ok("mysql: writes", text));
    }
}

/// What the next start changes in a table that is there.
fn planned_change(plan: &PlannedChange, rights: &Rights) -> Option<Finding> {
    let (table, what) = (&plan.table, plan.what.as_ref()?);
    if rights.lacks_for_tables.contains(&"ALTER") {
        let text = format!(
            "table `{table}`: {what}, but the user lacks ALTER; run {}, or as another user: {}",
            grant("ALTER", &rights.database, &rights.account),
            plan.statements.join("; ")
        );
        return Some(Finding::fail("mysql: table", text));
    }
    let fill =
        if plan.is_fillable { "; `waybill schema replay` then fills it for documents that are there" } else { "" };
    Some(Finding::ok("mysql: table", format!("table `{table}`: {what} at the next start{fill}")))
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
