//! `/metrics` for Prometheus and `/health` for load balancers, over plain HTTP.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::error;

use crate::metrics;
use crate::service::Services;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, services: Services) {
    let (for_metrics, for_health) = (services.clone(), services);
    let app = Router::new()
        .route("/metrics", get(move || std::future::ready(metrics_page(&for_metrics))))
        .route("/health", get(move || std::future::ready(health(&for_health))));
    if let Err(e) = axum::serve(listener, app).await {
        error!("http: {e}");
    }
}

fn metrics_page(services: &Services) -> impl IntoResponse + use<> {
    match metrics::text(services) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// 200 if every shard here votes; 503 with the reason if one does not.
fn health(services: &Services) -> impl IntoResponse + use<> {
    let mut reasons = String::new();
    for (number, shard) in services.shards.iter() {
        if let Some(reason) = shard.why_silent() {
            reasons += &format!("shard {number}: {reason}\n");
        }
    }
    match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    }
}
