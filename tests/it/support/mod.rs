//! What several tests need.

pub(crate) mod app;
pub(crate) mod mariadb;
pub(crate) mod oracle;
pub(crate) mod program;
