//! One seller of the sandbox: its credentials and its content.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::other_resources::documents::OtherResources;
use crate::stock::Stock;

/// One seller.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) client_id: Arc<str>,
    pub(crate) account: Arc<str>,
    pub(crate) secret: Mutex<String>,
    pub(crate) active: AtomicBool,
    pub(crate) stock: Mutex<Stock>,
    /// All other resources; generated at the first access.
    pub(crate) other_resources: Mutex<Option<OtherResources>>,
}
