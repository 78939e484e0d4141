//! Configuration: file and environment in, a checked [`Config`] out.
//!
//! Read once by the command line, which passes sections down by value; nothing else reads the environment. Every
//! default is a constant here and is shown in `config.example.toml`. Nothing starts with an invalid configuration: all
//! problems are reported at once, each with its place and the fix. `Debug` shows no secret.
//!
//! Files import downwards: `draft` reads and assembles; a file a section checks its values (`http`, `limits`, `log`,
//! `mysql`, `schedule`, `secrets`, `source`, with `paths` and `foreign`); `checked` is what they make; `settings` is the
//! file form, over `raw`, `values`, `keys` and `problem`.

mod checked;
mod draft;
pub(crate) mod exposure;
mod foreign;
mod http;
mod keys;
mod limits;
mod log;
mod mysql;
mod paths;
mod problem;
mod raw;
mod schedule;
mod secrets;
mod settings;
mod source;
mod values;

pub use checked::{Config, Limits, Log, LogFormat, MasterKeySource, SourceSettings};
pub use draft::{ConfigDraft, FILE_DEFAULT};
pub use problem::{ConfigError, ConfigProblem};
