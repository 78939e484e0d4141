//! Executes a batch: purges first, then one transaction with everything else.

use std::borrow::Borrow;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction, TxOpts, Value};
use tokio::time::timeout;

use crate::domain::Entry;
use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::execute::{Bounds, STATEMENT_BYTES_MAX, STATEMENT_BYTES_SPARE, WRITE_TIME_MAX, commit, execute};
use super::mirror;
use super::plan::{BatchPlan, LaidOutRows};
use super::replace::replace;
use super::value::{optional_datetime_value, text_value};
use super::{ANSWER_TIME_MAX, Mysql, answered};

/// Finds the tables with our columns, whatever their names.
const OUR_TABLES: &str = "SELECT c.TABLE_NAME FROM information_schema.COLUMNS c \
     JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME \
     WHERE c.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE = 'BASE TABLE' GROUP BY c.TABLE_NAME \
     HAVING SUM(c.COLUMN_NAME IN ('shop_id', 'version')) = 2 AND ( \
     SUM(c.COLUMN_NAME IN ('document', 'row_hash', 'document_hash', 'combination', 'no_longer_listed_at')) = 5 \
     OR SUM(c.COLUMN_NAME = 'position' AND c.COLUMN_KEY = 'PRI') + SUM(c.COLUMN_NAME = 'shop_id' AND c.COLUMN_KEY = 'PRI') = 2)";

/// Timeout of a batch's purges. Each step commits, so a retry continues where this attempt ended.
const PURGE_TIME_MAX: Duration = Duration::from_secs(600);
/// Documents laid out before yielding to other tasks.
const LAY_OUT_AT_ONCE: usize = 32;
/// Rows deleted per purge transaction, so that each makes progress.
const PURGE_ROWS: u64 = 5_000;

impl Mysql {
    /// Writes the entries in one transaction, as if one after the other. Returns after the commit was confirmed; only
    /// then may they be acknowledged. Repeating them is harmless. Rows of a purged shop are deleted before, in
    /// transactions of their own.
    ///
    /// # Errors
    /// Nothing of the transaction was applied, except with class `Disconnected` or `Unconfirmed`, where that is
    /// unknown. With class `Poison` at least one entry is refused for its content. Takes 60 s at most (25 s for one
    /// answer), and 10 s for a connection; a batch with a purge 10 minutes.
    ///
    /// Cancel safe: an abandoned write is rolled back with its connection, or was committed.
    pub async fn write<E: Borrow<Entry> + Sync>(&self, entries: &[E]) -> Result<(), SinkError> {
        if entries.is_empty() {
            return Ok(());
        }
        let plan = BatchPlan::new(entries, &self.layouts)?;
        let was_idle = self.has_idle();
        let conn = self.connection().await?;
        match self.write_on(conn, &plan, entries.len() == 1).await {
            // Another server may have taken over the address: drop pooled connections to the previous one, even those
            // that a reader returned a moment ago.
            Err(error) if was_idle && error.class == SinkErrorClass::Unavailable => {
                let conn = self.connection().await?;
                self.write_on(conn, &plan, entries.len() == 1).await
            }
            done => done,
        }
    }

    async fn write_on(&self, mut conn: Conn, plan: &BatchPlan<'_>, alone: bool) -> Result<(), SinkError> {
        if !plan.purges.is_empty() {
            let outcome = timeout(PURGE_TIME_MAX, self.purge(&mut conn, &plan.purges)).await;
            if !matches!(outcome, Ok(Ok(()))) {
                return self.settle(conn, outcome).await;
            }
        }
        let outcome = timeout(WRITE_TIME_MAX, self.carry_out(&mut conn, plan, alone)).await;
        self.settle(conn, outcome).await
    }

    async fn carry_out(&self, conn: &mut Conn, plan: &BatchPlan<'_>, alone: bool) -> Result<(), SinkError> {
        let packet = answered(ANSWER_TIME_MAX, self.packet(conn)).await.map_err(SinkError::before_documents)?;
        let row_bytes_max = packet.saturating_sub(STATEMENT_BYTES_SPARE);
        let mut rows = Vec::with_capacity(self.layouts.len());
        for (layout, documents) in self.layouts.iter().zip(&plan.documents) {
            let mut laid_out = LaidOutRows::new(layout);
            for (index, reading) in documents.values().enumerate() {
                if index % LAY_OUT_AT_ONCE == LAY_OUT_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
                laid_out.push(layout, reading, row_bytes_max)?;
            }
            rows.push(laid_out);
        }
        let begun = async { conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error)) };
        let mut transaction = answered(ANSWER_TIME_MAX, begun).await.map_err(SinkError::before_documents)?;
        let bounds = Bounds { bytes: STATEMENT_BYTES_MAX.min(row_bytes_max), alone };
        match self.apply(&mut transaction, plan, rows, bounds).await {
            Ok(()) => answered(ANSWER_TIME_MAX, commit(transaction))
                .await
                .map_err(|error| SinkError { class: SinkErrorClass::Unconfirmed, ..error }),
            // The connection is closed, which rolls back what was not committed.
            Err(error) if matches!(error.class, SinkErrorClass::Disconnected | SinkErrorClass::Unavailable) => {
                Err(error)
            }
            Err(error) => match transaction.rollback().await {
                Ok(()) => Err(error),
                // The pool must not reuse the connection; the class ensures that.
                Err(_) => Err(SinkError { class: SinkErrorClass::Disconnected, ..error }),
            },
        }
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        plan: &BatchPlan<'_>,
        rows: Vec<LaidOutRows<'_>>,
        bounds: Bounds,
    ) -> Result<(), SinkError> {
        self.pass_fence(transaction, plan.high_version()).await?;
        for (layout, rows) in self.layouts.iter().zip(rows) {
            replace(transaction, layout, rows, bounds).await?;
        }
        for listing in &plan.listings {
            if let Some(layout) = self.layouts.get(listing.layout) {
                let values = vec![
                    optional_datetime_value(listing.no_longer_listed_at),
                    text_value(listing.shop),
                    text_value(listing.id),
                    Value::UInt(listing.version),
                ];
                bounds.execute(transaction, &layout.listing, values).await?;
            }
        }
        for change in &plan.mirror {
            for (text, values) in mirror::statements(change)? {
                bounds.execute(transaction, text, values).await?;
            }
        }
        Ok(())
    }

    /// Deletes the shops' rows from all tables, children first, in committed steps.
    async fn purge(&self, conn: &mut Conn, shops: &[&str]) -> Result<(), SinkError> {
        let mut tables: Vec<String> = Vec::new();
        for layout in &self.layouts {
            tables.extend(layout.children.iter().map(|child| child.name.clone()));
            tables.push(layout.parent.name.clone());
            // Once more: a concurrent replay may have added child rows while their document still existed.
            tables.extend(layout.children.iter().map(|child| child.name.clone()));
        }
        // Also tables of resources that are no longer configured.
        let ours: Vec<String> = conn.query(OUR_TABLES).await.map_err(|error| sink_error(&error))?;
        tables.extend(ours.into_iter().filter(|name| !tables.contains(name)).collect::<Vec<_>>());
        for table in tables {
            let text = format!("DELETE FROM `{table}` WHERE `shop_id` = ? LIMIT {PURGE_ROWS}");
            for shop in shops {
                while self.purge_step(conn, &text, shop).await? == PURGE_ROWS {}
            }
        }
        Ok(())
    }

    /// One committed step of a purge; returns how many rows it deleted.
    async fn purge_step(&self, conn: &mut Conn, text: &str, shop: &str) -> Result<u64, SinkError> {
        let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error))?;
        self.pass_fence(&mut transaction, 0).await?;
        execute(&mut transaction, text, vec![text_value(shop)]).await?;
        let deleted = transaction.affected_rows();
        commit(transaction).await.map(|()| deleted)
    }
}
