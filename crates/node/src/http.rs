//! `/metrics` for Prometheus and `/health` for load balancers, over plain HTTP.

use std::sync::{Arc, Weak};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::error;

use crate::metrics;
use crate::service::Services;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, services: Services) {
    // A connection lives as long as its client likes, also after this future; it must not hold the shards,
    // which end only when nobody does.
    let services = Arc::new(services);
    let page = |page: fn(&Services) -> Response| {
        let services = Arc::downgrade(&services);
        get(move || std::future::ready(answer(&services, page)))
    };
    let app = Router::new().route("/metrics", page(metrics_page)).route("/health", page(health));
    if let Err(e) = axum::serve(listener, app).await {
        error!("http: {e}");
    }
}

fn answer(services: &Weak<Services>, page: fn(&Services) -> Response) -> Response {
    match services.upgrade() {
        Some(services) => page(&services),
        None => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

fn metrics_page(services: &Services) -> Response {
    match metrics::text(services) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// 200 if every shard here votes; 503 with the reason if one does not.
fn health(services: &Services) -> Response {
    let mut reasons = String::new();
    for (number, shard) in services.shards.iter() {
        if let Some(reason) = shard.why_silent() {
            reasons += &format!("shard {number}: {reason}\n");
        }
    }
    match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use florin_core::authority::Authority;
    use florin_core::testing::TestCommittee;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::shard::Shard;
    use crate::storage::Store;

    /// A stopping authority does not wait for those who connect and never finish their request.
    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let (committee, keys) = TestCommittee::default().build();
        let dir = tempfile::TempDir::new().unwrap();
        let store = Store::open(dir.path(), 0, *committee.id(), 0, true).unwrap();
        let authority = Authority::new(committee.clone(), 0, 0, keys[0].clone());
        let (shard, threads) = Shard::start(authority, store).unwrap();
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        let shards = Arc::new(BTreeMap::from([(0, shard)]));
        let services = Services { shards, committee, index: 0, lags: Arc::default(), stopping };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, services));

        let mut stuck = TcpStream::connect(address).await.unwrap();
        stuck.write_all(b"GET /he").await.unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /health HTTP/1.1\r\nhost: florin\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        server.abort();
        let _ = server.await;
        let end = tokio::task::spawn_blocking(move || threads.join());
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("the threads end").unwrap();
    }
}
