//! Runs the writer's statements with made-up documents and rolls them back, so that `waybill check` finds whatever the
//! server refuses.
//!
//! Nothing remains: no statement commits implicitly, and tables without transactions are skipped.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use tokio::time::timeout;

use crate::catalog::definition::{Column, ColumnKind};
use crate::catalog::extract::{Cell, Extract};
use crate::domain::Timestamp;
use crate::domain::document::Document;
use crate::domain::stream::{Checkpoint, ListParams, StreamId};
use crate::sink::{SinkError, SinkErrorClass};

use super::compare::{PlannedChange, compare, layout_now};
use super::errors::sink_error;
use super::execute::{Bounds, STATEMENT_BYTES_MAX, STATEMENT_BYTES_SPARE, soon};
use super::inspect::{self, ServerTable, Severity, TableFault};
use super::layout::Layout;
use super::plan::{BatchDocument, LaidOutRows, Mirror};
use super::replace::replace;
use super::value::{optional_datetime_value, text_value};
use super::{Mysql, READ_TIME_MAX, mirror};
use mysql_async::Value;

/// 2026-01-01T00:00:00Z
const AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// A four-byte UTF-8 character, which not every column accepts.
const CHARACTER: &str = "\u{1f600}";

/// Result of checking the definitions' tables and our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub faults: Vec<TableFault>,
    /// What the next start creates, adds and widens.
    pub planned: Vec<PlannedChange>,
    /// Resources whose writes were tried and accepted.
    pub written: Vec<String>,
}

/// Content of a made-up document.
#[derive(Clone, Copy, PartialEq)]
enum TrialContent {
    /// A value in each column, and rows in each child table.
    Full,
    /// NULL in every nullable column, and no child row.
    Empty,
}

impl Mysql {
    /// Inspects the existing tables, and tries the writes in transactions that are rolled back.
    ///
    /// # Errors
    /// No connection, or a failure unrelated to a table. Cancel safe.
    pub async fn inspect(&self) -> Result<Inspection, SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(READ_TIME_MAX, self.inspect_on(&mut conn)).await;
        self.settle(conn, outcome).await
    }

    async fn inspect_on(&self, conn: &mut Conn) -> Result<Inspection, SinkError> {
        let mut inspection = Inspection::default();
        let mut is_mirrored = true;
        for (table, key) in inspect::OWN_KEYS {
            match inspect::describe(conn, table).await? {
                Some(found) => {
                    inspection.faults.extend(inspect::own_faults(table, key, &found));
                    is_mirrored &= found.has_transactions();
                }
                None => {
                    is_mirrored = false;
                    inspection.planned.push(PlannedChange::creation(table));
                }
            }
        }
        for layout in &self.layouts {
            let (mut tables, mut differences) = (Vec::new(), Vec::new());
            for table in layout.tables() {
                let difference = compare(conn, table).await?;
                if let Some(found) = inspect::describe(conn, &table.name).await? {
                    // A missing key column is reported as a difference, where its cause is known.
                    if found.lacks(table.key()).is_none() {
                        inspection.faults.extend(inspect::faults(table, &found));
                    }
                    tables.push(found);
                }
                if let Some(text) = &difference.refused {
                    let (table, severity) = (table.name.clone(), Severity::Corrupts);
                    inspection.faults.push(TableFault { table, severity, text: text.clone() });
                }
                if !inspection.faults.iter().any(|fault| fault.blocks(&table.name)) {
                    inspection.planned.extend(difference.planned());
                }
                differences.push(difference);
            }
            // Only what is there can be tried.
            let Some(layout) = &layout_now(layout, &differences) else { continue };
            if !tables.iter().all(ServerTable::has_transactions) {
                continue;
            }
            if tables.iter().any(ServerTable::has_triggers) && has_tables_without_transactions(conn).await? {
                let text = format!(
                    "table `{}`: the writes were not tried: a trigger may write to a table without transactions, where \
                     that would stay",
                    layout.parent.name
                );
                inspection.faults.push(TableFault {
                    table: layout.parent.name.clone(),
                    severity: Severity::Notice,
                    text,
                });
                continue;
            }
            match self.rehearse(conn, layout, is_mirrored).await? {
                None => inspection.written.push(layout.definition.name.clone()),
                Some(fault) => inspection.faults.push(fault),
            }
        }
        Ok(inspection)
    }

    /// Tries the writes of one resource; returns what was refused.
    async fn rehearse(
        &self,
        conn: &mut Conn,
        layout: &Layout,
        is_mirrored: bool,
    ) -> Result<Option<TableFault>, SinkError> {
        let full = self.try_sample(conn, layout, TrialContent::Full, is_mirrored).await;
        let empty = self.try_sample(conn, layout, TrialContent::Empty, is_mirrored).await;
        let table = layout.parent.name.clone();
        let fault = |severity: Severity, what: &str, error: SinkError| {
            let text = format!("table `{table}`: {what}: {}", error.text);
            Some(TableFault { table: table.clone(), severity, text })
        };
        match (full, empty) {
            (Ok(()), Ok(())) => Ok(None),
            (_, Err(error)) if lost(&error) => Err(error),
            (Err(error), _) if lost(&error) => Err(error),
            (_, Err(error)) => Ok(fault(Severity::Refuses, "a test document was refused", error)),
            // A check constraint may refuse made-up values and still accept the API's.
            (Err(error), Ok(())) if error.class == SinkErrorClass::Poison => Ok(fault(
                Severity::Notice,
                "a test document with values was refused, one without values was accepted",
                error,
            )),
            (Err(error), Ok(())) => Ok(fault(Severity::Refuses, "a test document was refused", error)),
        }
    }

    async fn try_sample(
        &self,
        conn: &mut Conn,
        layout: &Layout,
        sample: TrialContent,
        is_mirrored: bool,
    ) -> Result<(), SinkError> {
        let packet = self.packet(conn).await?.saturating_sub(STATEMENT_BYTES_SPARE);
        let bounds = Bounds { bytes: STATEMENT_BYTES_MAX.min(packet), alone: true };
        let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error))?;
        let tried = async {
            let shop = format!("check-{:x}", fastrand::u64(..));
            // Inserts, then updates with more child rows, then with fewer.
            for (version, rows) in [(1, 1), (2, 2), (3, 1)] {
                let document = document(layout, &shop, version);
                let reading = BatchDocument { document: &document, first_listed_at: AT };
                let mut laid_out = LaidOutRows::new(layout);
                laid_out.push_extract(layout, &reading, extract(layout, sample, rows), packet)?;
                replace(&mut transaction, layout, laid_out, bounds).await?;
            }
            let values = vec![optional_datetime_value(Some(AT)), text_value(&shop), text_value("1"), Value::UInt(3)];
            bounds.execute(&mut transaction, &layout.listing, values).await?;
            if is_mirrored {
                let stream = StreamId {
                    shop: shop.as_str().into(),
                    resource: layout.definition.name.clone(),
                    combination: ListParams(vec![]),
                };
                let checkpoint = Checkpoint { walked_at: Some(AT), ..Checkpoint::default() };
                for (text, values) in
                    mirror::statements(&Mirror::Checkpoint { stream: &stream, checkpoint: &checkpoint })?
                {
                    bounds.execute(&mut transaction, text, values).await?;
                }
            }
            for table in layout.children.iter().chain([&layout.parent]) {
                let text = format!("DELETE FROM `{}` WHERE `shop_id` = ? LIMIT 5000", table.name);
                bounds.execute(&mut transaction, &text, vec![text_value(&shop)]).await?;
            }
            Ok(())
        };
        let tried = tried.await;
        match transaction.rollback().await {
            Ok(()) => tried,
            // The connection is closed, which rolls back what was not committed.
            Err(error) => tried.and(Err(SinkError { class: SinkErrorClass::Disconnected, ..sink_error(&error) })),
        }
    }
}

/// Whether a failure says nothing about a table.
fn lost(error: &SinkError) -> bool {
    matches!(error.class, SinkErrorClass::Disconnected | SinkErrorClass::Unconfirmed)
}

/// Whether the database has tables without transactions.
async fn has_tables_without_transactions(conn: &mut Conn) -> Result<bool, SinkError> {
    let text = "SELECT COUNT(*) FROM information_schema.TABLES t JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
                WHERE t.TABLE_SCHEMA = DATABASE() AND COALESCE(e.TRANSACTIONS, 'NO') <> 'YES'";
    let count: Option<u64> = soon(conn.query_first(text)).await?;
    Ok(count.is_some_and(|count| count > 0))
}

fn document(layout: &Layout, shop: &str, version: u64) -> Document {
    Document {
        shop: shop.into(),
        resource: layout.definition.name.clone(),
        combination: ListParams(vec![]),
        id: "1".to_owned(),
        version,
        fetched_at: AT,
        first_listed_at: AT,
        row_hash: u64::MAX,
        document_hash: u64::MAX,
        run: None,
        body: bytes::Bytes::from(format!("{{\"check\":\"{CHARACTER}\"}}")),
    }
}

fn extract(layout: &Layout, sample: TrialContent, rows: usize) -> Extract {
    let cells = |columns: &[Column]| columns.iter().map(|column| cell(column.kind, sample)).collect::<Vec<_>>();
    let rows = if sample == TrialContent::Full { rows } else { 0 };
    let table = &layout.definition.table;
    let children = table.children.iter().map(|child| vec![cells(&child.columns); rows]).collect();
    Extract { cells: cells(&table.columns), children }
}

fn cell(kind: ColumnKind, sample: TrialContent) -> Cell {
    if sample == TrialContent::Empty {
        return Cell::Null;
    }
    match kind {
        ColumnKind::Text(_) => Cell::Text(CHARACTER.to_owned()),
        ColumnKind::Datetime => Cell::Datetime("2026-01-01 00:00:00.000000".to_owned()),
        ColumnKind::Date => Cell::Date("2026-01-01".to_owned()),
        ColumnKind::Integer => Cell::Integer(1),
        ColumnKind::Decimal { .. } => Cell::Decimal("0".to_owned()),
        ColumnKind::Boolean => Cell::Boolean(true),
        ColumnKind::Json => Cell::Json(format!("[\"{CHARACTER}\"]")),
    }
}
