//! `waybill status`: how old each shop's data is, and whether anything is not well.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::out::Out;
use super::table::{self, Cell, Mark};
use super::{Failure, Outcome, Voice, at_rest, configure, nothing_yet, stop};
use crate::app::App;
use crate::domain::Shop;
use crate::domain::health::{Level, Reason, ResourceHealth, ShopHealth, State};
use crate::http;
use crate::http::backend::HealthView;

/// Show how old each shop's data is, and what is not well.
///
/// Reads the data directory at rest. While `waybill serve` runs on it, ask the service: GET /api/v1/status has the same
/// health.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill status\n  waybill status --json\n\n\
    Exit codes: 0 done and all well, 1 failed or not well, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> Outcome {
    let config = configure(path, Voice::Command)?;
    if let Some(none) = nothing_yet(&config, None)? {
        if args.json {
            out.json(&json!({"health": HealthView::default(), "shops": []}))?;
        } else {
            out.line(none)?;
        }
        return Ok(());
    }
    let drain = config.limits.drain;
    let app = at_rest(config, "GET /api/v1/status").await?;
    let shown = Box::pin(show(&app, &args, &mut out)).await;
    let stopped = stop::stop(app, drain).await;
    shown.and(stopped)
}

async fn show(app: &App, args: &Args, out: &mut Out) -> Outcome {
    app.look_at_sink().await;
    let backend = app.backend();
    let shops: BTreeMap<String, Shop> =
        backend.shops().await?.into_iter().map(|shop| (shop.id.clone(), shop)).collect();
    let of = backend.shops_health(shops.keys().cloned().collect()).await?;
    let health = backend.status(None).await?.health;
    let now = app.now();
    if args.json {
        let forms = http::shop_forms(&*backend, shops.into_values().collect()).await?;
        out.json(&json!({"health": health, "shops": forms}))?;
    } else {
        print_table(&health, &shops, &of, now, out)?;
    }
    match health.level {
        Level::Ok => Ok(()),
        level => Err(Failure::Failed(anyhow::anyhow!("not well: {}", level.name()))),
    }
}

fn print_table(
    health: &HealthView,
    shops: &BTreeMap<String, Shop>,
    of: &[ShopHealth],
    now: i64,
    out: &mut Out,
) -> Outcome {
    let heads = ["shop", "name", "resource", "state", "last success", "last error"];
    let mut rows = Vec::new();
    for shop in of {
        let name = shops.get(&shop.shop_id).map(|shop| shop.name.clone()).unwrap_or_default();
        rows.extend(shop.resources.iter().map(|resource| row(shop, &name, resource, now)));
    }
    out.table(&heads, &rows)?;
    out.line(format_args!("health: {}", health.level.name()))?;
    for reason in &health.reasons {
        out.line(table::clean(&line(reason)))?;
    }
    Ok(())
}

fn row(shop: &ShopHealth, name: &str, resource: &ResourceHealth, now: i64) -> Vec<Cell> {
    let ago = |at: i64| format!("{} ago", span(now.saturating_sub(at)));
    let error = resource.last_error.as_ref().map(|error| format!("{}: {}", ago(error.at), error.text));
    vec![
        shop.shop_id.as_str().into(),
        name.into(),
        resource.resource.as_str().into(),
        Cell::new(resource.state.name(), mark(resource.state)),
        resource.last_success_at.map_or_else(|| "never".to_owned(), ago).into(),
        error.unwrap_or_default().into(),
    ]
}

fn mark(state: State) -> Mark {
    match state {
        State::Fresh => Mark::Good,
        State::Paused | State::Behind | State::Unproved => Mark::Unsure,
        State::Failing | State::Refused => Mark::Bad,
    }
}

fn line(reason: &Reason) -> String {
    let of: Vec<&str> = [&reason.shop_id, &reason.resource].into_iter().flatten().map(String::as_str).collect();
    let about = if of.is_empty() { reason.code.name().to_owned() } else { of.join(" ") };
    format!("{about}: {}. Remedy: {}", reason.text, reason.remedy)
}

/// A length of time in its greatest unit.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_length_of_time_is_shown_in_its_greatest_unit() {
        let minute = 60_000;
        let shown = [-5, 119_000, 2 * minute, 119 * minute, 120 * minute, 47 * 60 * minute, 48 * 60 * minute].map(span);
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
