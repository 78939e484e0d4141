//! Moves an installation to another source: `waybill source move`.
//!
//! The data directory and the schema belong to the new source before anything is sent there; then each shop's secret is
//! proved by one login. A shop whose secret is refused stops; where the host cannot be reached, the move waits to be run
//! again. Until it is over no engine starts, for neither source.

use super::Service;
use super::restore::RestoreError;
use crate::domain::{Shop, SourceOrigin};
use crate::sink::mysql::MirroredShop;
use crate::sink::{Mysql, Sink, SinkError};
use crate::source::{Credentials, SourceError};
use crate::store::{Restored, Secrets, StoreError};

/// What a move to the configured source changes.
#[derive(Clone, Debug)]
pub struct SourceMove {
    pub to: SourceOrigin,
    /// What the data directory belongs to; None: it records nothing.
    pub directory: Option<SourceOrigin>,
    /// What the MySQL schema belongs to, if that is another source; None within: it records nothing.
    pub schema: Option<Option<SourceOrigin>>,
    /// Shops whose secrets are sent to the new source.
    pub shops: usize,
    /// An earlier run was allowed to move to this source, and was interrupted.
    pub was_begun: bool,
    /// Something belongs to another source, or was not proved at this one.
    pub is_needed: bool,
}

/// Whether a secret works at the new source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Accepted,
    /// The shop is stopped, for this reason.
    Refused(String),
}

/// Why a move did not end. It can be run again.
#[derive(Debug, thiserror::Error)]
pub enum SourceMoveError {
    #[error("MySQL must be reachable, since its shops move too: {0}")]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the shops cannot be restored from MySQL: {0}")]
    Restore(String),
    #[error(
        "shop {shop} could not be proved: {error}. Nothing is called until the move is over; run `waybill source move` \
         again, which goes on with this shop"
    )]
    Unreachable { shop: String, error: SourceError },
}

impl From<RestoreError> for SourceMoveError {
    fn from(error: RestoreError) -> SourceMoveError {
        SourceMoveError::Restore(error.to_string())
    }
}

impl Service {
    /// What a move would change. Changes nothing.
    ///
    /// # Errors
    /// MySQL cannot be reached, or the store cannot be read.
    pub async fn plan_source_move(&self) -> Result<SourceMove, SourceMoveError> {
        let to = self.source.origin().clone();
        let installed = self.store.installed_source()?;
        let directory = installed.as_ref().map(|known| known.origin.clone());
        let is_moving = installed.is_some_and(|known| known.is_moving);
        let mut is_other = directory.as_ref() != Some(&to) && !self.store.is_unused()?;
        let mut shops = match &directory {
            Some(_) => self.store.unproved_shops(&to)?.len(),
            // It is not known where they were proved.
            None => self.store.shops()?.len(),
        };
        let mut schema = None;
        if let Sink::Mysql(mysql) = &self.sink
            && mysql.other_source().await?.is_some()
        {
            is_other = true;
            schema = Some(mysql.sources().await?.present().flatten().cloned());
            if self.store.is_blank()? {
                shops = self.shops_to_take_over(mysql).await?;
            }
        }
        Ok(SourceMove {
            was_begun: is_moving && directory.as_ref() == Some(&to),
            is_needed: is_other || is_moving || shops > 0,
            to,
            directory,
            schema,
            shops,
        })
    }

    /// The number of shops that an empty data directory gets from MySQL.
    async fn shops_to_take_over(&self, mysql: &Mysql) -> Result<usize, SourceMoveError> {
        let shops = mysql.shops_if_any().await?;
        let is_foreign = |row: &&MirroredShop| {
            let restored = self.store.may_restore(&row.shop, &row.sealed);
            matches!(restored, Ok(Restored::Unreadable(fault)) if fault.may_be_key())
        };
        match shops.iter().filter(is_foreign).count() {
            foreign if foreign > 0 && foreign == shops.len() => Err(RestoreError::OtherKey(foreign).into()),
            foreign => Ok(shops.len() - foreign),
        }
    }

    /// Begins or goes on with a move: data directory and schema belong to the configured source, and the shops of an
    /// empty directory are restored. Returns those to prove.
    ///
    /// # Errors
    /// As [`SourceMoveError`] says.
    pub async fn begin_source_move(&self) -> Result<Vec<Shop>, SourceMoveError> {
        let to = self.source.origin();
        self.store.begin_source_move(to.clone()).await?;
        if let Sink::Mysql(mysql) = &self.sink {
            mysql.create_tables().await?;
            mysql.move_source().await?;
        }
        self.restore().await?;
        Ok(self.store.unproved_shops(to)?)
    }

    /// Sends a shop's secret to the new source, and records whether it works. Where no login host is, the first call
    /// of the shop shows it.
    ///
    /// # Errors
    /// [`SourceMoveError::Unreachable`]: it is not known whether it works.
    pub async fn prove_at_source(&self, shop: &Shop) -> Result<Proof, SourceMoveError> {
        let opened = match self.store.secrets(&shop.id) {
            Ok(opened) => opened,
            Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => {
                let reason = "its secret cannot be read; give it a new one".to_owned();
                self.store.refuse_shop(shop, reason.clone()).await?;
                return Ok(Proof::Refused(reason));
            }
            Err(error) => return Err(error.into()),
        };
        let Secrets { client_id, client_secret, .. } = opened;
        // The operator allowed it to be sent.
        let credentials = Credentials::new(client_id, client_secret, None);
        match self.source.prove(&credentials).await {
            Ok(()) => {
                self.store.note_proof(&shop.id).await?;
                Ok(Proof::Accepted)
            }
            Err(SourceError::Refused { reason }) => {
                self.store.refuse_shop(shop, reason.clone()).await?;
                Ok(Proof::Refused(reason))
            }
            Err(error) => Err(SourceMoveError::Unreachable { shop: shop.id.to_string(), error }),
        }
    }

    /// Ends a move: every shop was proved or stopped.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_source_move(&self) -> Result<(), SourceMoveError> {
        Ok(self.store.end_source_move().await?)
    }
}
