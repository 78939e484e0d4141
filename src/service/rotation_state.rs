//! How far a rotation of the master key is in this process, and where the keys are kept.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

/// Where the master key is kept, and the one that follows it.
pub(crate) trait MasterKeyFiles: Send + Sync {
    /// The key that follows; None: no rotation was begun.
    fn next(&self) -> anyhow::Result<Option<Zeroizing<[u8; 32]>>>;
    /// The same; it is made if there is none.
    fn next_or_new(&self) -> anyhow::Result<Zeroizing<[u8; 32]>>;
    /// Puts the next key in the place of the old one. What the operator has to do for that; None: it is done.
    fn finish(&self) -> anyhow::Result<Option<String>>;
}

/// The master key in use and how far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKeyView {
    /// The name of the key that wraps the data keys.
    pub id: String,
    pub rotation: Option<RotationView>,
    /// What is left for the operator after a rotation.
    pub to_do: Option<String>,
}

/// A rotation that is not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationView {
    /// Rows of shops in MySQL, and how many of them the old key sealed; None: not counted yet.
    pub rows: Option<(u64, u64)>,
    /// Why it does not go on now.
    pub error: Option<String>,
}

/// State of the rotation in this process.
#[derive(Default)]
pub(super) struct Rotation {
    /// One at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) view: Mutex<Option<RotationView>>,
    pub(super) to_do: Mutex<Option<String>>,
}

impl Rotation {
    /// One is under way.
    pub(super) fn begin(&self) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    pub(super) fn set(&self, view: Option<RotationView>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}
