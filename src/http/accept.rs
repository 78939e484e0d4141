//! Content negotiation: whether `Accept` allows a media type (RFC 9110, 12.5.1).

use warp::http::HeaderMap;
use warp::http::header::ACCEPT;

/// Whether `Accept` allows `media`. A header that is absent, empty or unreadable allows everything: only an explicit
/// exclusion counts.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let values: Option<Vec<&str>> = headers.get_all(ACCEPT).iter().map(|value| value.to_str().ok()).collect();
    let ranges: Vec<&str> = values.iter().flatten().flat_map(|value| value.split(',')).map(str::trim).collect();
    let ranges = ranges.into_iter().filter(|range| !range.is_empty());
    // The most specific range decides, wherever it occurs.
    let mut decisive = None;
    let mut any = false;
    for range in ranges {
        any = true;
        let (essence, parameters) = range.split_once(';').unwrap_or((range, ""));
        let closeness = match essence.trim() {
            essence if essence.eq_ignore_ascii_case(media) => 3,
            essence if is_wildcard_subtype(essence, media) => 2,
            "*/*" => 1,
            _ => continue,
        };
        if decisive.is_none_or(|(closest, _)| closeness > closest) {
            decisive = Some((closeness, !is_excluded(parameters)));
        }
    }
    !any || decisive.is_some_and(|(_, is_taken)| is_taken)
}

/// `application/*` for `application/json`.
fn is_wildcard_subtype(range: &str, media: &str) -> bool {
    let kinds = range.strip_suffix("/*").zip(media.split_once('/'));
    kinds.is_some_and(|(range, (kind, _))| range.eq_ignore_ascii_case(kind))
}

/// `q=0`, in any of its forms.
fn is_excluded(parameters: &str) -> bool {
    let weights = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let mut weights = weights.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weights.next().and_then(|(_, weight)| weight.trim().parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderMap;
    use warp::http::header::{ACCEPT, HeaderValue};

    use super::accepts;

    #[test]
    fn json_is_refused_only_if_accept_excludes_it() {
        let json = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            accepts(&headers, "application/json")
        };
        for good in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json"],
            &["Application/JSON; charset=utf-8"],
            &["application/*;q=0.2, text/html"],
            &["text/html,application/xhtml+xml,*/*;q=0.8"],
            &["text/html", "application/json;q=0.001"],
            &["*/*;q=0, application/json"],
            &["application/json;q=high"],
        ] {
            assert!(json(good), "{good:?}");
        }
        for bad in [
            &["text/html"][..],
            &["application/problem+json"],
            &["application/json;q=0"],
            &["*/*, application/json; q=0.000"],
            &["application/*;q=0, */*"],
            &["text/*", "image/png"],
        ] {
            assert!(!json(bad), "{bad:?}");
        }
    }
}
