//! What this data directory knows of its ownership of a MySQL schema, for a start while MySQL cannot be reached.

use serde::{Deserialize, Serialize};

use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::tx::handle::Store;
use crate::store::tx::sequences;

pub(crate) const KEY: &[u8] = b"mowner";
/// The version of the record.
const VERSION: u32 = 1;

/// What was known when it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    version: u32,
    /// Of the last claim.
    pub epoch: u64,
    /// Where the schema is.
    pub schema: String,
    /// Boot of the machine in which the last claim or loss was.
    pub boot: String,
    /// MySQL went away after the beat at this time since the boot, in milliseconds; none: no such loss was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_beat_ms: Option<u64>,
    /// A standby may take over.
    #[serde(default)]
    pub has_standby: bool,
}

impl Ownership {
    /// The note of a claim.
    pub fn claimed(epoch: u64, schema: String, boot: String) -> Ownership {
        Ownership { version: VERSION, epoch, schema, boot, last_beat_ms: None, has_standby: false }
    }
}

impl Store {
    /// The note of the last claim; none: this data directory never owned a schema.
    ///
    /// # Errors
    /// The engine's read errors; a note that does not decode.
    pub fn ownership(&self) -> Result<Option<Ownership>, StoreError> {
        self.0.kv.get(KEY)?.map(|bytes| decode("the ownership", &bytes)).transpose()
    }

    /// Writes the note.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_ownership(&self, ownership: &Ownership) -> Result<(), StoreError> {
        let bytes = encode("the ownership", ownership)?;
        self.transact(move |tx| {
            tx.put(KEY.to_vec(), bytes);
            Ok(())
        })
        .await
    }

    /// Lets versions to come be greater than this one.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn raise_version(&self, version: u64) -> Result<(), StoreError> {
        if sequences::last_version(&*self.0.kv)? >= version {
            return Ok(());
        }
        self.transact(move |tx| sequences::raise_version(tx, version)).await
    }
}
