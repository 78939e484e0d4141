//! `waybill schema infer`: writes a definition for a new resource from a few API calls.
//!
//! Reads one list page and some details, within the rate budget. Stores only the used slots and the token. The result
//! is validated by the reader of the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;

use super::single_call::{Caller, Identity, to_error};
use crate::catalog::infer::{self, Sample, guess};
use crate::catalog::{Definition, Rule, RuleTable, reader};
use crate::config::Config;
use crate::domain::{Json, Shop};
use crate::sink::mysql;
use crate::source::{Call, Credentials, Outcome, pages};

/// Arguments of the command.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// Name of the new resource.
    pub resource: String,
    pub path: String,
    /// JSON pointer to the rows; none: guessed from the response.
    pub items: Option<String>,
    /// JSON pointer to the id in a row; none: guessed from the rows.
    pub id: Option<String>,
    /// Path of one document, with `{id}`; without it the row is the document.
    pub detail: Option<String>,
    pub media_type: String,
    /// Parameters of the list, each with its values. The sample is read with the first of each.
    pub parameters: Vec<(String, Vec<String>)>,
    pub shop: Option<String>,
    /// Most documents that are read.
    pub rows: usize,
    /// Rate limit for paths without a rate rule.
    pub limit: Option<String>,
}

/// The inferred definition as TOML.
#[derive(Clone, Debug)]
pub struct Inferred {
    pub toml: String,
    pub calls: usize,
}

/// The paths of `wanted` without a rate rule, as rule patterns.
pub fn without_rule(config: &Config, wanted: &InferRequest) -> Vec<String> {
    let paths = std::iter::once(&wanted.path).chain(&wanted.detail);
    let lacking = paths.filter(|path| config.rules.find("GET", path).is_none());
    lacking.map(|path| Rule::name_for("GET", path)).collect()
}

/// Reads a sample and writes the definition that fits it.
///
/// # Errors
/// Errors of the store or the API, or an insufficient sample; each names the remedy.
pub async fn infer(config: &Config, wanted: &InferRequest) -> anyhow::Result<Inferred> {
    let config = Config { rules: rules(config, wanted)?, ..config.clone() };
    let caller = Caller::open(&config)?;
    let shop = caller.shop(wanted.shop.as_deref(), None)?;
    let credentials = caller.credentials(&shop)?;
    let sampler = Sampler { caller: &caller, shop, credentials };
    let list = sampler.list(wanted).await?;
    let answer = Json::parse(&list.body).map_err(|_| anyhow!("the response of {} is not JSON", wanted.path))?;
    let items = match &wanted.items {
        Some(items) => items.clone(),
        None => guess::items(&answer).ok_or_else(|| {
            anyhow!(
                "there is no array of objects in the response of {}; if the list is not empty, give its place: --items /POINTER",
                wanted.path
            )
        })?,
    };
    let rows = match answer.pointer(&items) {
        Some(Json::Array(rows)) if !rows.is_empty() => rows.as_slice(),
        Some(Json::Array(_)) => {
            bail!("{} has no rows now, so nothing can be inferred; try again when it has some", wanted.path)
        }
        _ => bail!("--items {items}: there is no array at this place in the response of {}", wanted.path),
    };
    let id = match &wanted.id {
        Some(id) if guess::is_unique(rows, id) => id.clone(),
        Some(id) => bail!("--id {id}: it is not a unique text or whole number in each of the {} rows", rows.len()),
        None => guess::id(rows, &wanted.resource)
            .context("no field of the rows looks like a unique id; give one: --id /POINTER")?,
    };
    let details = match &wanted.detail {
        Some(path) => Some((path.as_str(), sampler.details(wanted, path, &id, rows).await?)),
        None => None,
    };
    let documents: Vec<Json<'_>> = match &details {
        Some((_, details)) => details.read()?,
        None => rows.iter().take(wanted.rows).cloned().collect(),
    };
    let sample = Sample {
        resource: &wanted.resource,
        media_type: &wanted.media_type,
        id: &id,
        path: &wanted.path,
        items: &items,
        parameters: &wanted.parameters,
        pages: &guess::pages(&answer, &items, list.has_next_link),
        detail: details.as_ref().map(|(path, details)| (*path, details.document.as_str())),
        rows,
        documents: &documents,
    };
    let toml = infer::definition(&sample);
    validate(&wanted.resource, &toml)?;
    let calls = 1 + details.as_ref().map_or(0, |(_, details)| details.bodies.len());
    let toml = format!("{}\n{toml}", preface(&config, wanted, rows.len(), documents.len()));
    Ok(Inferred { toml, calls })
}

/// The rate rules, with an added one for each path without.
fn rules(config: &Config, wanted: &InferRequest) -> anyhow::Result<RuleTable> {
    let known: BTreeMap<String, String> =
        config.rules.rules().iter().map(|rule| (rule.name.clone(), rule.limit_text())).collect();
    let limit = wanted.limit.clone().unwrap_or_default();
    let more = without_rule(config, wanted).into_iter().map(|pattern| (pattern, limit.clone())).collect();
    RuleTable::build([&known, &more]).map_err(|problems| anyhow!(problems))
}

/// Comment lines above the definition: its origin and rate rules.
fn preface(config: &Config, wanted: &InferRequest, rows: usize, documents: usize) -> String {
    let name = &wanted.resource;
    let mut lines = vec![
        format!("# {name}: inferred from {rows} rows and {documents} documents of GET {}.", wanted.path),
        "# Review it: fields that the sample did not contain are missing. Then add it to `resources`.".to_owned(),
    ];
    for path in std::iter::once(&wanted.path).chain(&wanted.detail) {
        let Some(rule) = config.rules.find("GET", path) else { continue };
        let limit = rule.limit_text();
        lines.push(match &wanted.limit {
            Some(given) if rule.name == Rule::name_for("GET", path) && *given == limit => {
                format!("# To go under [source.limits]: \"{}\" = \"{limit}\"", rule.name)
            }
            _ => format!("# GET {path} has the rate rule \"{}\" = \"{limit}\"", rule.name),
        });
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Parses the definition like the configuration does, and builds its tables.
fn validate(name: &str, text: &str) -> anyhow::Result<Definition> {
    let fault = "internal error: the inferred definition is invalid; please report it";
    let file: toml::Table = toml::from_str(text).context(fault)?;
    let own = file.get("resource").and_then(|all| all.get(name)).and_then(toml::Value::as_table).context(fault)?;
    let definition = reader::read(name, own).map_err(|problems| anyhow!("{fault}: {problems}"))?;
    let tables = mysql::ddl(&[Arc::new(definition.clone())]);
    tables.map_err(|what| anyhow!("the documents do not fit a table: {what}"))?;
    Ok(definition)
}

/// Makes the calls for one shop.
struct Sampler<'a> {
    caller: &'a Caller<'a>,
    shop: Shop,
    credentials: Credentials,
}

struct ListAnswer {
    body: Bytes,
    has_next_link: bool,
}

/// Responses of detail calls.
struct Details {
    bodies: Vec<Bytes>,
    /// JSON pointer to the document in each.
    document: String,
}

impl Details {
    fn read(&self) -> anyhow::Result<Vec<Json<'_>>> {
        let read = |body| {
            let answer = Json::parse(body).map_err(|_| anyhow!("a detail response is not JSON"))?;
            answer
                .pointer(&self.document)
                .cloned()
                .context("the detail responses do not all have their document at the same place")
        };
        self.bodies.iter().map(|body| read(body)).collect()
    }
}

impl Sampler<'_> {
    async fn get(&self, path: String, query: Vec<(String, String)>, media_type: &str) -> anyhow::Result<(Bytes, bool)> {
        let call = Call { path, query, media_type: media_type.to_owned() };
        let identity = Identity { shop: &self.shop, credentials: &self.credentials };
        let Outcome { result, next_link, .. } = self.caller.call(identity, &call).await?;
        let body = result.map_err(|error| to_error(&error)).with_context(|| format!("GET {}", call.path))?;
        Ok((body, next_link.is_some()))
    }

    async fn list(&self, wanted: &InferRequest) -> anyhow::Result<ListAnswer> {
        let first = |(name, values): &(String, Vec<String>)| Some((name.clone(), values.first()?.clone()));
        let query = wanted.parameters.iter().filter_map(first).collect();
        let (body, has_next_link) = self.get(wanted.path.clone(), query, &wanted.media_type).await?;
        Ok(ListAnswer { body, has_next_link })
    }

    /// Reads the documents of the first rows.
    async fn details(&self, wanted: &InferRequest, path: &str, id: &str, rows: &[Json<'_>]) -> anyhow::Result<Details> {
        let mut details = Details { bodies: Vec::new(), document: String::new() };
        for row in rows.iter().take(wanted.rows) {
            let Some(own) = row.pointer(id).and_then(pages::id_text) else { continue };
            let (body, _) = self.get(pages::fill(path, None, &own), Vec::new(), &wanted.media_type).await?;
            if details.bodies.is_empty() {
                let answer = Json::parse(&body).map_err(|_| anyhow!("the response of GET {path} is not JSON"))?;
                details.document = guess::document(&answer, id, &own)
                    .with_context(|| format!("the response of GET {path} has no document with the row's {id}"))?;
            }
            details.bodies.push(body);
        }
        Ok(details)
    }
}
