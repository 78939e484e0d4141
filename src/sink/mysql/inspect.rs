//! Finds defects of existing tables that would merge documents, refuse them, or leave half a batch.
//!
//! Reads the server's own description, at the start and in `waybill check`; pure functions judge it. Nothing is
//! changed: each fault names the statement that repairs it.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::{FromRow, Queryable};

use crate::sink::SinkError;

use super::execute::soon;
use super::layout::{SqlColumn, SqlTable};

/// The table of applied migrations.
pub(super) const MIGRATIONS_TABLE_NAME: &str = "waybill_migrations";
/// Tables of ours that belong to no definition, with their primary keys.
pub(super) const OWN_KEYS: [(&str, &[&str]); 8] = [
    (MIGRATIONS_TABLE_NAME, &["number"]),
    ("waybill_shops", &["id"]),
    ("waybill_checkpoints", &["shop_id", "resource", "combination"]),
    ("waybill_replays", &["resource", "only_shop"]),
    ("waybill_fences", &["name"]),
    ("waybill_register", &["role"]),
    ("waybill_handover", &["epoch", "part"]),
    ("waybill_installation", &["number"]),
];

/// Severity of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look: the server may refuse some documents, or does more than it was asked to.
    Notice,
    /// Documents that the definition allows are refused.
    Refuses,
    /// Documents would overwrite each other, or a crash would leave half a batch: the table is not written.
    Corrupts,
}

/// A fault of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFault {
    pub table: String,
    pub severity: Severity,
    /// What is wrong, its effect, and the statement that repairs it.
    pub text: String,
}

impl TableFault {
    /// Whether it keeps a start from writing this table.
    pub(super) fn blocks(&self, table: &str) -> bool {
        self.severity == Severity::Corrupts && self.table == table
    }
}

/// A table as the server describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerTable {
    is_view: bool,
    engine: String,
    has_transactions: bool,
    row_format: String,
    columns: Vec<ServerColumn>,
    /// By name, in lower case.
    indexes: BTreeMap<String, Index>,
    triggers: Vec<String>,
    /// Check constraints that are not ours, as name and text.
    checks: Vec<(String, String)>,
    foreign_keys: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct ServerColumn {
    name: String,
    kind: String,
    charset: Option<String>,
    collation: Option<String>,
    is_nullable: bool,
    has_default: bool,
    extra: String,
}

#[derive(Clone, Debug, Default)]
struct Index {
    is_unique: bool,
    /// Columns with the indexed prefix length; the name is empty for an expression.
    parts: Vec<(String, Option<u64>)>,
}

impl ServerTable {
    pub(super) fn has_transactions(&self) -> bool {
        self.has_transactions
    }

    /// The first of these columns that the table lacks.
    pub(super) fn lacks<'a>(&self, names: &'a [String]) -> Option<&'a String> {
        names.iter().find(|name| self.columns.iter().all(|column| column.name != **name))
    }

    pub(super) fn has_triggers(&self) -> bool {
        !self.triggers.is_empty()
    }
}

impl ServerColumn {
    /// The server computes the column and accepts no value for it.
    fn is_generated(&self) -> bool {
        let extra = self.extra.to_uppercase();
        ["VIRTUAL", "STORED", "PERSISTENT"].iter().any(|word| extra.contains(word))
    }

    /// An insert must supply a value.
    fn needs_value(&self) -> bool {
        let has_own = self.has_default
            || self.extra.to_lowercase().contains("auto_increment")
            || self.kind.starts_with("enum")
            || self.is_generated();
        !self.is_nullable && !has_own
    }
}

impl Index {
    /// Whether rows that differ in these columns could still conflict in this unique index.
    fn merges(&self, key: &[String]) -> bool {
        let takes = |name: &String| self.parts.iter().any(|(part, length)| part == name && length.is_none());
        self.is_unique && !key.iter().all(takes)
    }

    fn list(&self) -> String {
        let part = |(name, length): &(String, Option<u64>)| match length {
            Some(length) => format!("`{name}`({length})"),
            None => format!("`{name}`"),
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

/// Reads a table's description; None if it does not exist or is not visible to the user.
pub(super) async fn describe(conn: &mut Conn, table: &str) -> Result<Option<ServerTable>, SinkError> {
    let text = "SELECT TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(ROW_FORMAT, '') FROM information_schema.TABLES \
                WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    let rows: Vec<(String, String, String)> = soon(conn.exec(text, (table,))).await?;
    let Some((kind, engine, row_format)) = rows.into_iter().next() else { return Ok(None) };
    let text = "SELECT COUNT(*) FROM information_schema.ENGINES WHERE ENGINE = ? AND TRANSACTIONS = 'YES'";
    let transactional: Option<u64> = soon(conn.exec_first(text, (&engine,))).await?;
    Ok(Some(ServerTable {
        is_view: kind.contains("VIEW"),
        has_transactions: transactional.is_some_and(|count| count > 0),
        engine,
        row_format,
        columns: columns(conn, table).await?,
        indexes: indexes(conn, table).await?,
        triggers: triggers(conn, table).await?,
        checks: checks(conn, table).await?,
        foreign_keys: foreign_keys(conn, table).await?,
    }))
}

async fn columns(conn: &mut Conn, table: &str) -> Result<Vec<ServerColumn>, SinkError> {
    let text = "SELECT COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE = 'YES', \
                COLUMN_DEFAULT IS NOT NULL, EXTRA FROM information_schema.COLUMNS \
                WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    type Row = (String, String, Option<String>, Option<String>, bool, bool, String);
    let rows: Vec<Row> = soon(conn.exec(text, (table,))).await?;
    let column = |(name, kind, charset, collation, is_nullable, has_default, extra): Row| ServerColumn {
        name: name.to_lowercase(),
        kind: kind.to_lowercase(),
        charset: charset.map(|charset| charset.to_lowercase()),
        collation: collation.map(|collation| collation.to_lowercase()),
        is_nullable,
        has_default,
        extra,
    };
    Ok(rows.into_iter().map(column).collect())
}

async fn indexes(conn: &mut Conn, table: &str) -> Result<BTreeMap<String, Index>, SinkError> {
    let text = "SELECT INDEX_NAME, NON_UNIQUE = 0, COALESCE(COLUMN_NAME, ''), CAST(SUB_PART AS UNSIGNED) \
                FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? \
                ORDER BY INDEX_NAME, SEQ_IN_INDEX";
    let rows: Vec<(String, bool, String, Option<u64>)> = soon(conn.exec(text, (table,))).await?;
    let mut found: BTreeMap<String, Index> = BTreeMap::new();
    for (name, is_unique, column, length) in rows {
        let index = found.entry(name).or_default();
        index.is_unique = is_unique;
        index.parts.push((column.to_lowercase(), length));
    }
    Ok(found)
}

/// Triggers visible to the user.
async fn triggers(conn: &mut Conn, table: &str) -> Result<Vec<String>, SinkError> {
    let text = "SELECT CONCAT('`', TRIGGER_NAME, '` ', ACTION_TIMING, ' ', EVENT_MANIPULATION) \
                FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = ? \
                ORDER BY TRIGGER_NAME";
    soon(conn.exec(text, (table,))).await
}

/// Check constraints other than those that validate JSON. Older servers have no such table.
async fn checks(conn: &mut Conn, table: &str) -> Result<Vec<(String, String)>, SinkError> {
    let mariadb = "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
                   WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ? AND CHECK_CLAUSE NOT LIKE 'json_valid(%'";
    let mysql = "SELECT c.CONSTRAINT_NAME, c.CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS c \
                 JOIN information_schema.TABLE_CONSTRAINTS t ON t.CONSTRAINT_SCHEMA = c.CONSTRAINT_SCHEMA \
                 AND t.CONSTRAINT_NAME = c.CONSTRAINT_NAME WHERE c.CONSTRAINT_SCHEMA = DATABASE() \
                 AND t.TABLE_NAME = ? AND t.ENFORCED = 'YES'";
    let version: Option<String> = soon(conn.query_first("SELECT VERSION()")).await?;
    let text = if version.is_some_and(|version| version.contains("MariaDB")) { mariadb } else { mysql };
    or_none(conn, text, table).await
}

async fn foreign_keys(conn: &mut Conn, table: &str) -> Result<Vec<String>, SinkError> {
    let text = "SELECT CONCAT('`', CONSTRAINT_NAME, '` of `', TABLE_NAME, '` to `', REFERENCED_TABLE_NAME, '`') \
                FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() \
                AND ? IN (TABLE_NAME, REFERENCED_TABLE_NAME) ORDER BY CONSTRAINT_NAME";
    or_none(conn, text, table).await
}

/// Treats a missing information_schema table as empty.
async fn or_none<T: FromRow + Send + 'static>(conn: &mut Conn, text: &str, table: &str) -> Result<Vec<T>, SinkError> {
    const UNKNOWN_TABLE: [u16; 2] = [1109, 1146];
    match conn.exec(text, (table,)).await {
        Err(mysql_async::Error::Server(error)) if UNKNOWN_TABLE.contains(&error.code) => Ok(Vec::new()),
        answer => soon(async { answer }).await,
    }
}

/// Faults of one of our own tables.
pub(super) fn own_faults(table: &str, key: &[&str], found: &ServerTable) -> Vec<TableFault> {
    let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
    let mut faults = Faults { table, found: Vec::new() };
    faults.of_store(found);
    faults.of_keys(&key, found);
    faults.of_additions(found);
    faults.found
}

/// Faults of a definition's table.
pub(super) fn faults(table: &SqlTable, found: &ServerTable) -> Vec<TableFault> {
    let mut faults = Faults { table: &table.name, found: Vec::new() };
    faults.of_store(found);
    if found.is_view {
        return faults.found;
    }
    if let Some(missing) = found.lacks(table.key()) {
        let text = format!(
            "it is not Waybill's: it has no column `{missing}`; rename it, or give the resource another table name"
        );
        faults.add(Severity::Corrupts, &text);
        return faults.found;
    }
    faults.of_keys(table.key(), found);
    for column in &found.columns {
        match table.columns.iter().find(|ours| ours.name == column.name) {
            Some(ours) => faults.of_column(table, ours, column),
            None => faults.of_foreign_column(column),
        }
    }
    faults.of_additions(found);
    faults.found
}

struct Faults<'a> {
    table: &'a str,
    found: Vec<TableFault>,
}

impl Faults<'_> {
    fn add(&mut self, severity: Severity, text: &str) {
        let table = self.table.to_owned();
        self.found.push(TableFault { text: format!("table `{table}`: {text}"), severity, table });
    }

    /// Checks the storage engine and kind of table.
    fn of_store(&mut self, found: &ServerTable) {
        let (table, engine) = (self.table, &found.engine);
        if found.is_view {
            let text = "it is a view, which cannot be written to; rename it, or give the resource another table name";
            return self.add(Severity::Corrupts, text);
        }
        if !found.has_transactions {
            let text = format!(
                "its engine is {engine}, which has no transactions, so that a crash would leave half a batch; run ALTER \
                 TABLE `{table}` ENGINE = InnoDB"
            );
            self.add(Severity::Corrupts, &text);
        }
        if ["COMPACT", "REDUNDANT"].contains(&found.row_format.to_uppercase().as_str()) {
            let format = &found.row_format;
            let text = format!(
                "its row format is {format}, in which rows of many long texts do not fit; run ALTER TABLE `{table}` \
                 ROW_FORMAT = DYNAMIC"
            );
            self.add(Severity::Notice, &text);
        }
    }

    /// Checks that our key, and no other unique index, distinguishes rows.
    fn of_keys(&mut self, key: &[String], found: &ServerTable) {
        let table = self.table;
        let ours = key.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(",");
        // With system versioning each unique index includes the row's end time.
        let versioning: Vec<&str> = found
            .columns
            .iter()
            .filter(|column| column.is_generated() && !key.contains(&column.name))
            .map(|column| column.name.as_str())
            .collect();
        match found.indexes.get("PRIMARY") {
            None => {
                let text = format!(
                    "it has no primary key, so that documents would be stored twice; remove duplicate rows, and run ALTER TABLE \
                     `{table}` ADD PRIMARY KEY ({ours})"
                );
                self.add(Severity::Corrupts, &text);
            }
            Some(primary) => {
                let mut parts: Vec<&str> = primary.parts.iter().map(|(name, _)| name.as_str()).collect();
                parts.retain(|name| !versioning.contains(name));
                let is_same = parts.len() == key.len()
                    && key.iter().all(|name| parts.contains(&name.as_str()))
                    && primary.parts.iter().all(|(_, length)| length.is_none());
                if !is_same {
                    let text = format!(
                        "its primary key is ({}), but documents are distinguished by ({ours}); run ALTER TABLE `{table}` \
                         DROP PRIMARY KEY, ADD PRIMARY KEY ({ours})",
                        primary.list()
                    );
                    self.add(Severity::Corrupts, &text);
                }
            }
        }
        for (name, index) in found.indexes.iter().filter(|(name, _)| *name != "PRIMARY") {
            if index.merges(key) {
                let list = index.list();
                let text = format!(
                    "index `{name}` is unique on ({list}), so that a second document with the same values is refused \
                     and parked; run ALTER TABLE `{table}` DROP INDEX `{name}`, ADD INDEX `{name}` ({list})"
                );
                self.add(Severity::Refuses, &text);
            }
        }
    }

    /// Checks one of our columns.
    fn of_column(&mut self, table: &SqlTable, ours: &SqlColumn, there: &ServerColumn) {
        let (name, statement) = (&ours.name, table.change_column(ours, false, false));
        let is_key = table.key().contains(name);
        if there.is_generated() {
            let text = format!("column `{name}` is generated, but the writer must set it; run {statement}");
            return self.add(Severity::Refuses, &text);
        }
        if let Some(collation) = there.collation.as_deref().filter(|_| is_key)
            && !collation.ends_with("_bin")
            && collation != "binary"
        {
            let text = format!(
                "column `{name}` compares by {collation}, which treats different ids as equal; run {statement}, and then \
                 `waybill verify --mend`"
            );
            self.add(Severity::Corrupts, &text);
        } else if let Some(charset) = there.charset.as_deref()
            && charset != "utf8mb4"
            && charset != "binary"
        {
            let text = format!(
                "column `{name}` is {charset}, which cannot hold every character: documents with other characters are \
                 refused and parked; run {statement}"
            );
            self.add(Severity::Refuses, &text);
        }
        if ours.kind.ends_with(" NULL") && !ours.kind.ends_with("NOT NULL") && !there.is_nullable {
            let text = format!(
                "column `{name}` is NOT NULL, so that a document without this value is refused and parked; run {statement}"
            );
            self.add(Severity::Refuses, &text);
        }
    }

    /// Checks a column that is not ours.
    fn of_foreign_column(&mut self, column: &ServerColumn) {
        if column.needs_value() {
            let (table, ServerColumn { name, kind, .. }) = (self.table, column);
            let text = format!(
                "column `{name}` is not Waybill's, is NOT NULL and has no default, so no document can be written; \
                 run ALTER TABLE `{table}` MODIFY COLUMN `{name}` {kind} NULL"
            );
            self.add(Severity::Refuses, &text);
        }
    }

    /// Checks triggers, constraints and foreign keys.
    fn of_additions(&mut self, found: &ServerTable) {
        if !found.triggers.is_empty() {
            let text = format!(
                "it has triggers ({}); documents that they refuse are parked, and values that they change differ from the API's",
                found.triggers.join(", ")
            );
            self.add(Severity::Notice, &text);
        }
        for (name, clause) in &found.checks {
            let text =
                format!("its constraint `{name}` refuses documents that violate {clause}, which are then parked");
            self.add(Severity::Notice, &text);
        }
        if !found.foreign_keys.is_empty() {
            let text = format!(
                "foreign keys ({}) may refuse documents, or the removal of a shop's rows",
                found.foreign_keys.join(", ")
            );
            self.add(Severity::Notice, &text);
        }
    }
}
