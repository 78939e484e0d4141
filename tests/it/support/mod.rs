//! What several tests need.

pub(crate) mod mariadb;
pub(crate) mod program;
