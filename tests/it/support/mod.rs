//! What several tests need. `mariadb` and `program` serve the rig (`tests/rig`) too.

pub(crate) mod app;
#[allow(dead_code, reason = "the rig uses the rest")]
pub(crate) mod mariadb;
pub(crate) mod oracle;
#[allow(dead_code, reason = "the rig uses the rest")]
pub(crate) mod program;
