//! `waybill schema infer`: samples a list of the API and writes a definition for it. Stores nothing but the use of the
//! budget.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::call::{Caller, told};
use crate::catalog::infer::{Samples, definition, find_id, find_items};
use crate::catalog::{Limit, reader};
use crate::config::Config;
use crate::source::Call;

/// What to sample.
#[derive(Clone, Debug)]
pub struct Ask {
    pub resource: String,
    pub path: String,
    pub items: Option<String>,
    pub id: Option<String>,
    /// Holds `{id}`.
    pub detail: Option<String>,
    pub media_type: String,
    pub parameters: Vec<(String, String)>,
    pub shop: Option<String>,
    pub rows: usize,
    /// Where the configuration has no rate rule.
    pub limit: Option<Limit>,
}

/// Samples, and writes the definition.
///
/// # Errors
/// No shop, no answer, nothing in it that looks like rows, or a path without a limit.
pub async fn infer(config: &Config, ask: &Ask) -> anyhow::Result<String> {
    let caller = Caller::open(config)?;
    let shop = caller.shop(ask.shop.as_deref(), &ask.resource)?;
    let credentials = caller.credentials(&shop)?;
    for path in std::iter::once(&ask.path).chain(&ask.detail) {
        if config.rules.find("GET", path).is_none() && ask.limit.is_none() {
            anyhow::bail!("no rate rule for GET {path}; give --limit, like --limit 20/min");
        }
    }
    // Without a rule nobody else counts these calls, so they keep to an even pace.
    let pause = ask.limit.map_or(Duration::ZERO, |limit| limit.window / limit.calls.max(1));
    let get = async |path: String, query: Vec<(String, String)>| -> anyhow::Result<(Value, bool)> {
        let call = Call { path, query, media_type: ask.media_type.clone() };
        let outcome = caller.call(&shop, &credentials, &call).await?;
        let body = outcome.result.map_err(|error| told(&error)).with_context(|| call.path.clone())?;
        let value = serde_json::from_slice(&body).with_context(|| format!("{}: the answer is no JSON", call.path))?;
        if config.rules.find("GET", &call.path).is_none() {
            tokio::time::sleep(pause).await;
        }
        Ok((value, outcome.next_link.is_some()))
    };
    let (answer, has_link_header) = get(ask.path.clone(), ask.parameters.clone()).await?;
    let items = ask.items.clone().or_else(|| find_items(&answer));
    let items = items.context("no array of rows in the answer; say where it is with --items")?;
    let rows = answer.pointer(&items).and_then(Value::as_array).cloned();
    let rows = rows.with_context(|| format!("--items {items}: there is no array"))?;
    anyhow::ensure!(!rows.is_empty(), "the list has no rows for this shop; nothing can be learned from it");
    let id = ask.id.clone().or_else(|| find_id(&rows, &ask.resource));
    let id = id.context("no field of the rows looks like an id; name it with --id")?;
    let documents = match &ask.detail {
        None => rows.iter().take(ask.rows).cloned().collect(),
        Some(detail) => {
            let mut documents = Vec::new();
            for row in rows.iter().take(ask.rows) {
                let id = row.pointer(&id).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
                let id = id.with_context(|| format!("a row has no {}", ask.id.as_deref().unwrap_or("id")))?;
                let path = detail.replace("{id}", &crate::source::pages::segment(&id));
                documents.push(get(path, Vec::new()).await?.0);
            }
            documents
        }
    };
    let Ask { resource, media_type, path, detail, parameters, .. } = ask.clone();
    let text = definition(&Samples {
        resource,
        media_type,
        path,
        detail,
        parameters,
        answer,
        items,
        id,
        has_link_header,
        documents,
    });
    check(&ask.resource, &text)?;
    Ok(with_limits(ask, text))
}

/// What we print must be taken.
fn check(resource: &str, text: &str) -> anyhow::Result<()> {
    let table: toml::Table = toml::from_str(text).context("the definition cannot be read back")?;
    let own = table.get("resource").and_then(|all| all.get(resource)).and_then(toml::Value::as_table);
    let own = own.context("the definition cannot be read back")?;
    reader::read(resource, own).map(drop).map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))
}

fn with_limits(ask: &Ask, text: String) -> String {
    let Some(limit) = ask.limit else { return text };
    let detail = ask.detail.as_ref().map(|path| format!("# \"GET {}\" = \"{limit}\"\n", path.replace("{id}", "*")));
    format!("# [source.limits]\n# \"GET {}\" = \"{limit}\"\n{}\n{text}", ask.path, detail.unwrap_or_default())
}
