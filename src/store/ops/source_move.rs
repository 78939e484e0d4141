//! Binds a data directory to its source, and moves it to another one.
//!
//! A move is three kinds of commits: the directory belongs to the new source and has no token any more; shop by shop, its
//! secret was proved there or refused; the move is over. Between the first and the last no engine starts, so a crash
//! leaves a directory that calls neither source until the move was finished.

use crate::domain::{Shop, ShopState, SourceOrigin};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::shop_state;
use crate::store::records::call_counts::LOGIN_RULE;
use crate::store::records::shops;
use crate::store::records::source::{self, InstalledSource};
use crate::store::tx::handle::Store;

impl Store {
    /// Whether nothing here came from a source: no shop, no rows of a deleted one, no archived document.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn is_unused(&self) -> Result<bool, StoreError> {
        for prefix in [keyspace::SHOPS, keyspace::DELETED_SHOPS, keyspace::ARCHIVE] {
            if self.0.kv.scan(prefix, prefix).next().transpose()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records that the directory belongs to this source, and that so do the secrets whose records do not say it.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn adopt_source(&self, origin: SourceOrigin) -> Result<(), StoreError> {
        self.transact_given(move |tx| source::put(tx, &InstalledSource::adopted(origin))).await
    }

    /// Records where the secrets were proved whose records do not say it: those of a schema that an earlier release
    /// wrote. None: nowhere that is known.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn set_unnoted(&self, unnoted: Option<SourceOrigin>) -> Result<(), StoreError> {
        self.transact(move |tx| match source::get(tx)? {
            Some(known) if known.unnoted != unnoted => source::put(tx, &InstalledSource { unnoted, ..known }),
            Some(_) | None => Ok(()),
        })
        .await
    }

    /// Begins a move: the directory belongs to `to`, and the tokens and the login pause of the former source are gone.
    /// May be repeated, and with another source.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn begin_source_move(&self, to: SourceOrigin) -> Result<(), StoreError> {
        self.transact_given(move |tx| {
            // Where nothing was recorded, it is not known either where the secrets were proved.
            let unnoted = source::get(tx)?.and_then(|known| known.unnoted);
            source::put(tx, &InstalledSource { unnoted, is_moving: true, ..InstalledSource::adopted(to) })?;
            for (key, _) in tx.scan(keyspace::TOKENS, keyspace::TOKENS, usize::MAX)? {
                tx.delete(key);
            }
            tx.delete(keyspace::pause("", LOGIN_RULE));
            Ok(())
        })
        .await
    }

    /// Ends a move.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn end_source_move(&self) -> Result<(), StoreError> {
        self.transact_given(|tx| match source::get(tx)? {
            Some(known) => source::put(tx, &InstalledSource { is_moving: false, ..known }),
            None => Ok(()),
        })
        .await
    }

    /// The shops whose secrets were proved somewhere else than at `here`, or nowhere that is known.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn unproved_shops(&self, here: &SourceOrigin) -> Result<Vec<Shop>, StoreError> {
        let mut unproved = Vec::new();
        for shop in self.shops()? {
            if !self.is_proved(&shop.id, here)? {
                unproved.push(shop);
            }
        }
        Ok(unproved)
    }

    /// Whether a shop's secret was proved at `here`; a shop that is gone needs no proof.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn is_proved(&self, shop: &str, here: &SourceOrigin) -> Result<bool, StoreError> {
        let Some(record) = self.shop_record(shop)? else { return Ok(true) };
        Ok(self.where_proved(record.proved_at)?.as_ref() == Some(here))
    }

    /// Notes that the source in use accepted a shop's secret. One that another source refused becomes active.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn note_proof(&self, shop: &str) -> Result<(), StoreError> {
        let (key, here, now) = (self.shop_key(shop)?, self.0.source.get().cloned(), self.now());
        let shop = shop.to_owned();
        self.transact_given(move |tx| {
            let Some(mut record) = shops::read(tx, &shop)? else { return Ok(()) };
            record.move_to(&key, here)?;
            if record.shop.state == ShopState::Refused {
                record.shop.state = ShopState::Active;
                record.shop.reason = None;
            }
            record.shop.updated_at = shop_state::changed_at(&record.shop, now);
            shop_state::put(tx, &record, now)
        })
        .await
    }

    /// Stops a shop whose secret the source in use does not accept. Where it was proved before stays noted, so it is not
    /// sent again: only a new secret is.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn refuse_shop(&self, shop: &Shop, reason: String) -> Result<(), StoreError> {
        let (id, key, now) = (shop.id.clone(), self.shop_key(&shop.id), self.now());
        self.transact_given(move |tx| {
            let Some(mut record) = shops::read(tx, &id)? else { return Ok(()) };
            // A secret that cannot be read goes nowhere.
            if let (None, Ok(key)) = (&record.proved_at, &key) {
                let unnoted = source::get(tx)?.and_then(|known| known.unnoted);
                record.move_to(key, unnoted).ok();
            }
            record.shop.state = ShopState::Refused;
            record.shop.reason = Some(reason);
            record.shop.updated_at = shop_state::changed_at(&record.shop, now);
            shop_state::put(tx, &record, now)
        })
        .await?;
        self.stop_runs(&shop.id).await
    }
}
