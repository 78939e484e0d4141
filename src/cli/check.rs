//! `waybill check`: checks the installation. Each finding names the fix.
//!
//! Local checks (folder, key file, port) are made here; those that need other parts (tokens, one page, MySQL rights, the
//! clock) by `App::check`. Nothing is changed.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::log::{self, Voice};
use super::output::Out;
use super::table::{self, Mark};
use crate::app::{self, App, CheckLevel, Finding, Holder};
use crate::catalog::openapi_check::ApiDescription;
use crate::catalog::{self, DefinitionDraft, DefinitionProblem};
use crate::config::{Config, MasterKeySource};
use crate::domain::Clock;
use crate::domain::clock::rfc3339;
use crate::domain::schedule::{Schedule, Timetable};

/// Width of a label and the gap after it.
const INDENT: usize = 6;

/// Check configuration, data directory, tokens, one page, MySQL rights and the clock.
///
/// Each line says what was checked, and what to do. It reads up to two pages of each list of each shop and up to three
/// documents, which uses that much of its budget, looks at stored documents for columns that none of them fills, and
/// changes nothing.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill check\n  waybill check --offline   # contacts neither the marketplace nor MySQL\n  \
    waybill check --offline --openapi api.json\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Check only this machine
    #[arg(long)]
    offline: bool,
    /// Check each path and parameter of the definitions against the API's OpenAPI 3 document (JSON)
    #[arg(long, value_name = "FILE")]
    openapi: Option<PathBuf>,
    /// Print one JSON document instead of the lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let api = args.openapi.as_deref().map(read_openapi).transpose()?;
    let mut draft = super::open::draft(path, &super::open::environment())?;
    let compared: Vec<Compared> =
        api.iter().flat_map(|api| draft.definitions().iter().map(|one| Compared::new(one, api))).collect();
    if !draft.is_sound() {
        // Reported together with the other problems.
        let problems = compared.iter().flat_map(|compared| &compared.problems);
        problems.for_each(|DefinitionProblem { key, what }| draft.add(key, what));
    }
    let definitions = draft.definitions().to_vec();
    let config = draft.finish()?;
    config.check_resources()?;
    log::start(&config.log, Voice::Command)?;
    let mut findings = local(&config);
    findings.extend(config.exposed.iter().map(|problem| {
        Finding::warn(&problem.place, format!("{}; the next start or sync does so itself", problem.what))
    }));
    findings.extend(without_effect(&config, &definitions)?);
    findings.extend(compared.into_iter().flat_map(|compared| compared.findings(&config)));
    if !args.json {
        show(&findings, &mut out)?;
    }
    if !args.offline {
        let probed = App::check(&config).await;
        if !args.json {
            show(&probed, &mut out)?;
        }
        findings.extend(probed);
    }
    if args.json {
        show_json(&findings, &mut out)?;
    }
    let wrong = findings.iter().filter(|finding| finding.level == CheckLevel::Fail).count();
    if wrong > 0 {
        return Err(CommandError::Failed(anyhow::anyhow!("{wrong} of {} checks failed", findings.len())));
    }
    Ok(())
}

fn read_openapi(file: &Path) -> Result<ApiDescription, CommandError> {
    let wrong = |what: String| CommandError::Usage(format!("--openapi {}: {what}", file.display()));
    let text = fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    ApiDescription::read(&text).map_err(wrong)
}

/// Definitions and rate rules of the configuration that have no effect.
fn without_effect(config: &Config, drafts: &[DefinitionDraft]) -> anyhow::Result<Vec<Finding>> {
    let off = drafts.iter().filter(|draft| !draft.is_wanted).map(|draft| {
        let what = "is defined but not among `resources`: it is not synced".to_owned();
        Finding::ok(format!("resource {}", draft.definition.name), what)
    });
    let rules = catalog::idle_rules(&config.rules, drafts).map_err(anyhow::Error::msg)?;
    let idle = rules.into_iter().map(|(rule, hint)| {
        let what = format!("source.limits.\"{rule}\": matches no list or detail of the configured resources{hint}");
        Finding::fail(config.place(&format!("source.limits.{rule}")), what)
    });
    Ok(off.chain(idle).collect())
}

/// A resource, and where it contradicts the API's OpenAPI document: APIs silently ignore unknown parameters.
struct Compared {
    name: String,
    problems: Vec<DefinitionProblem>,
}

impl Compared {
    fn new(draft: &DefinitionDraft, api: &ApiDescription) -> Compared {
        Compared { name: draft.definition.name.clone(), problems: api.check(draft) }
    }

    fn findings(self, config: &Config) -> Vec<Finding> {
        if self.problems.is_empty() {
            let what = "its paths and parameters are in the API's OpenAPI document".to_owned();
            return vec![Finding::ok(format!("resource {}", self.name), what)];
        }
        let finding = |problem: DefinitionProblem| Finding::fail(config.place(&problem.key), problem.to_string());
        self.problems.into_iter().map(finding).collect()
    }
}

fn show(findings: &[Finding], out: &mut Out) -> CommandResult {
    for Finding { subject, level, text } in findings {
        let (label, mark) = match level {
            CheckLevel::Ok => ("ok", Mark::Good),
            CheckLevel::Warn => ("WARN", Mark::Unsure),
            CheckLevel::Fail => ("FAIL", Mark::Bad),
        };
        let label = format!("{label:4}");
        let label = if out.has_colors() { mark.paint(&label) } else { label };
        out.sentence(&format!("{label}  {}: {}", table::clean(subject), table::clean(text)), INDENT)?;
    }
    Ok(())
}

fn show_json(findings: &[Finding], out: &mut Out) -> CommandResult {
    let checks: Vec<_> = findings
        .iter()
        .map(|Finding { subject, level, text }| {
            json!({ "subject": subject, "level": level, "ok": *level != CheckLevel::Fail, "text": text })
        })
        .collect();
    let is_ok = findings.iter().all(|finding| finding.level != CheckLevel::Fail);
    Ok(out.json(&json!({ "ok": is_ok, "checks": checks }))?)
}

fn local(config: &Config) -> Vec<Finding> {
    let file = config.file.as_ref().map_or("defaults, no file".to_owned(), |file| file.display().to_string());
    let resources: Vec<&str> = config.definitions.iter().map(|definition| definition.name.as_str()).collect();
    vec![
        Finding::ok("configuration", format!("{file}; resources: {}", resources.join(", "))),
        Finding::of("data directory", data_dir(&config.data_dir)),
        Finding::of("master key", master_key(&config.master_key, &config.data_dir)),
        Finding::of("port", port(config)),
        Finding::ok("schedule", schedule(config)),
    ]
}

/// The next times of each schedule, which show best what it means.
fn schedule(config: &Config) -> String {
    let next = |what: &str, schedule: &Schedule| {
        let next = schedule.next(Clock::system().now()).map_or("never".to_owned(), rfc3339);
        format!("{what} \"{}\" next at {next}", schedule.expression())
    };
    let Timetable { sync, reconcile } = &config.schedule;
    format!(
        "{}, {} (second minute hour day month weekday, in {}; with five fields there is no second)",
        next("sync", sync),
        next("reconcile", reconcile),
        sync.zone()
    )
}

fn data_dir(dir: &Path) -> Result<String, String> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is a file; name another with data_dir")),
        Ok(found) if found.permissions().readonly() => {
            Err(format!("{shown} is read-only; give it to the service's user"))
        }
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Err(format!("other users can access {shown}; the next start closes it to them, or run: chmod 700 {shown}"))
        }
        Ok(_) => Ok(format!("{shown} is there")),
        Err(error) if error.kind() == ErrorKind::NotFound => created(dir),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Whether the first start can create a folder.
fn created(dir: &Path) -> Result<String, String> {
    let shown = dir.display();
    let Some(there) = dir.ancestors().skip(1).find(|above| above.is_dir() || above.as_os_str().is_empty()) else {
        return Err(format!("{shown}: no folder above it is there; name another with data_dir"));
    };
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !app::machine::may_write(there) {
        return Err(format!(
            "{shown} cannot be created at the first start: this user may not write to {}; create it and give it to the \
             service's user, or name another with data_dir",
            there.display()
        ));
    }
    let with = if dir.parent().is_some_and(|parent| parent == there || parent.as_os_str().is_empty()) {
        ""
    } else {
        ", and the folders above it"
    };
    Ok(format!("{shown} is created at the first start{with}"))
}

fn master_key(source: &MasterKeySource, data_dir: &Path) -> Result<String, String> {
    let is_made = app::is_master_key_made(source, data_dir).map_err(|error| format!("{error:#}"))?;
    let file = match source {
        MasterKeySource::Env(_) => return Ok("from WAYBILL_MASTER_KEY".to_owned()),
        MasterKeySource::File(file) => file,
    };
    Ok(match is_made {
        true => format!("in {}; keep a copy separate from the data", file.display()),
        false => format!("{} is created at the first start", file.display()),
    })
}

fn port(config: &Config) -> Result<String, String> {
    match TcpListener::bind(config.listen) {
        Ok(_) => Ok(format!("{} is free", config.listen)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match Holder::find(&config.data_dir) {
            Some(Some(holder)) if holder.address().is_some_and(|at| at.port() == config.listen.port()) => {
                Ok(format!("{} is in use by {holder}", config.listen))
            }
            Some(None) => Ok(format!("{} is in use while another Waybill process runs", config.listen)),
            _ => Err(format!(
                "{} is in use by another program: `ss -ltnp` shows which; stop it, or choose another port with \
                 http.listen",
                config.listen
            )),
        },
        Err(error) => Err(format!("cannot listen on {}: {error}; choose another with http.listen", config.listen)),
    }
}

#[cfg(test)]
mod tests {
    use super::{data_dir, master_key};
    use crate::config::MasterKeySource;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_that_others_can_access_are_reported_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("data.key");
        let source = MasterKeySource::File(key.clone());
        let data = folder.path().join("data");
        assert!(master_key(&source, &data).unwrap().ends_with("is created at the first start"));
        fs::create_dir_all(data.join("sled/db")).unwrap();
        assert!(master_key(&source, &data).unwrap_err().contains("restore the file"));
        fs::remove_dir_all(&data).unwrap();
        fs::write(&key, "k").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        assert!(master_key(&source, &data).unwrap_err().contains("32 bytes in base64"));
        fs::write(&key, format!("{}=\n", "A".repeat(43))).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        assert!(master_key(&source, &data).unwrap_err().contains("run: chmod 600 "));
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        assert!(master_key(&source, &data).is_ok());
        assert!(data_dir(&key).unwrap_err().contains("is a file"));
        assert!(data_dir(&folder.path().join("data")).unwrap().ends_with("is created at the first start"));
    }
}
