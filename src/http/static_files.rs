//! The static files of two pages: the dashboard (`/`) and the API reference (`/docs`).
//!
//! They contain no data: they ask for an API key, keep it for the browser tab and call the API with it. All files are
//! embedded in the binary, and the content security policy forbids other sources.

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use warp::reply::Response;

use super::reply::{ApiResult, Problem, Reply, finish};
use super::request::{RequestHead, head};

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Denies the pages every device feature.
const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), \
     midi=(), payment=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), usb=(), xr-spatial-tracking=()",
);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type, content.
const FILES: [(&str, &str, &str); 7] = [
    ("/", HTML, include_str!("assets/dashboard.html")),
    ("/docs", HTML, include_str!("assets/docs.html")),
    ("/assets/icon.svg", SVG, include_str!("assets/icon.svg")),
    ("/assets/waybill.css", CSS, include_str!("assets/waybill.css")),
    ("/assets/session.js", SCRIPT, include_str!("assets/session.js")),
    ("/assets/dashboard.js", SCRIPT, include_str!("assets/dashboard.js")),
    ("/assets/docs.js", SCRIPT, include_str!("assets/docs.js")),
];

/// Probe paths, whose 405 needs no key either.
const KEYLESS: [&str; 3] = ["/livez", "/healthz", "/readyz"];

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    head()
        .and_then(|head: RequestHead| {
            let known = FILES.iter().any(|(path, ..)| *path == head.path) || KEYLESS.contains(&head.path.as_str());
            std::future::ready(if known { Ok(head) } else { Err(warp::reject::not_found()) })
        })
        .map(|head: RequestHead| finish(&head.request_id, show(&head)))
        .boxed()
}

fn show(head: &RequestHead) -> ApiResult {
    let file = FILES.iter().find(|(path, ..)| *path == head.path);
    match file {
        Some((_, content_type, text)) if head.is_read() => {
            let page = Reply::text(HeaderValue::from_static(content_type), *text);
            let isolated = HeaderValue::from_static("same-origin");
            Ok(page
                .with(CONTENT_SECURITY_POLICY, POLICY)
                .with(REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
                .with(HeaderName::from_static("permissions-policy"), PERMISSIONS)
                .with(HeaderName::from_static("cross-origin-opener-policy"), isolated.clone())
                .with(HeaderName::from_static("cross-origin-resource-policy"), isolated))
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD".to_owned())),
    }
}
