//! Why a sandbox cannot be started, or a control cannot be applied.

/// Options or a control that cannot be applied; the text names the cause and the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("limits: {0}")]
    Limits(String),
    #[error("faults: {0}")]
    Faults(String),
    #[error("no shop has the client id `{0}`; add it with POST /_sandbox/shops")]
    UnknownShop(String),
    #[error("there is already a shop with the client id `{0}`; give each shop its own")]
    ShopExists(String),
    #[error("client_id must not be empty and must not hold a colon (Basic authentication splits there)")]
    ClientId,
    #[error("there is no resource `{0}`; use a name of the catalog, like returns or invoice_requests")]
    UnknownResource(String),
    #[error("the shop has no shipment left for another document of {0}; add one with POST /_sandbox/shipments")]
    NothingFor(String),
}
