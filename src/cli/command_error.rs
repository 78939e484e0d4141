//! Why a command failed, and with it its exit code.

use crate::app::NoSuchShop;
use crate::config::ConfigError;
use crate::domain::OtherSource;
use crate::service::ServiceError;

/// Why a command failed.
pub(super) enum CommandError {
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// Everything else: exit code 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> CommandError {
        match error.downcast::<NoSuchShop>() {
            Ok(named) => named.into(),
            // The configuration is for another source than the data.
            Err(error) if error.is::<OtherSource>() => CommandError::Usage(error.to_string()),
            Err(error) => CommandError::Failed(error),
        }
    }
}

impl From<NoSuchShop> for CommandError {
    fn from(named: NoSuchShop) -> CommandError {
        CommandError::Usage(named.to_string())
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> CommandError {
        CommandError::Failed(error.into())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> CommandError {
        CommandError::Usage(error.to_string())
    }
}

impl From<ServiceError> for CommandError {
    fn from(error: ServiceError) -> CommandError {
        match error {
            ServiceError::Invalid(fields) => {
                let lines: Vec<String> =
                    fields.iter().map(|wrong| format!("`{}` {}", wrong.field, wrong.message)).collect();
                CommandError::Usage(lines.join("\n"))
            }
            other => CommandError::Failed(other.into()),
        }
    }
}

pub(super) type CommandResult = Result<(), CommandError>;
