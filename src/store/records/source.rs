//! The source that a data directory belongs to: where its credentials were proved, and the only place they are sent to.

use serde::{Deserialize, Serialize};

use crate::domain::{SourceOrigin, is_default};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

const SOURCE: &[u8] = b"msource";
/// Of the record's form.
const VERSION: u32 = 1;

/// The source of a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledSource {
    pub(crate) version: u32,
    pub origin: SourceOrigin,
    /// Where the secrets and tokens were proved whose records do not note it: those of a release that noted none. None:
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnoted: Option<SourceOrigin>,
    /// A move to `origin` is not finished: not every shop was proved there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_moving: bool,
}

impl InstalledSource {
    /// What a directory belongs to that uses this source from the beginning, or has used it so far.
    pub fn adopted(origin: SourceOrigin) -> InstalledSource {
        InstalledSource { version: VERSION, unnoted: Some(origin.clone()), origin, is_moving: false }
    }
}

fn read(bytes: &[u8]) -> Result<InstalledSource, StoreError> {
    let source: InstalledSource = decode("the source", bytes)?;
    if source.version > VERSION {
        let detail = format!("a newer waybill wrote it (form {}); use that version", source.version);
        return Err(StoreError::Record { what: "the source".to_owned(), detail });
    }
    Ok(source)
}

pub(crate) fn get(tx: &Tx<'_>) -> Result<Option<InstalledSource>, StoreError> {
    tx.get(SOURCE)?.map(|bytes| read(&bytes)).transpose()
}

pub(crate) fn put(tx: &mut Tx<'_>, source: &InstalledSource) -> Result<(), StoreError> {
    tx.put(SOURCE.to_vec(), encode("the source", source)?);
    Ok(())
}

impl Store {
    /// The source that this data directory belongs to; None: it is not recorded.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn installed_source(&self) -> Result<Option<InstalledSource>, StoreError> {
        self.0.kv.get(SOURCE)?.map(|bytes| read(&bytes)).transpose()
    }

    /// Sets the source that this process proves new secrets at. The first call counts.
    pub fn use_source(&self, origin: SourceOrigin) {
        self.0.source.get_or_init(|| origin);
    }
}
