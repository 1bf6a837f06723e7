//! The admin port: metrics and probes over plain HTTP, for people, scrapers and
//! orchestrators. Nothing on it changes the node.
//!
//! - `/metrics`: OpenMetrics text.
//! - `/livez`: 200 while the process is worth keeping, 503 once it has failed.
//! - `/readyz`: 200 while the node serves, else 503 with every reason.

use std::{
    future::{Future, IntoFuture as _},
    io,
    net::SocketAddr,
    sync::Arc,
};

use axum::{
    Router, extract::State, http::header, response::IntoResponse, routing::get,
    serve::Listener as _,
};
use tokio::{sync::oneshot, time::sleep};

pub use self::health::{Health, HealthState, Trouble, TroubleKind, Warning};
use self::{
    listener::BoundedListener,
    probes::{livez, readyz},
};
use crate::{host::Listen, limits, telemetry::Metrics};

mod health;
mod listener;
mod probes;
#[cfg(test)]
mod tests;

/// What the handlers answer from.
#[derive(Clone, Debug)]
struct Sources {
    metrics: Arc<Metrics>,
    health: Health,
}

/// The admin port, bound and not yet served.
#[derive(Debug)]
pub struct AdminServer {
    listener: BoundedListener,
    router: Router,
}

impl AdminServer {
    /// Prepares to serve on `listener`.
    pub fn new(listener: Box<dyn Listen>, metrics: Arc<Metrics>, health: Health) -> Self {
        let router = Router::new()
            .route("/metrics", get(exposition))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(Sources { metrics, health });
        Self {
            listener: BoundedListener::new(listener),
            router,
        }
    }

    /// The address it is bound to, with the port the system chose if it was 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` completes, then lets open requests end, but waits no
    /// longer than [`limits::ADMIN_DRAIN_TIMEOUT`] for them.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) {
        let (stopping, drain) = oneshot::channel();
        let stop = async move {
            stop.await;
            // Nobody waits for it when serving has ended by itself.
            let _ = stopping.send(());
        };
        let serving = axum::serve(self.listener, self.router).with_graceful_shutdown(stop);
        let too_long = async {
            let _ = drain.await;
            sleep(limits::ADMIN_DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            // It has no error to give: failing accepts are logged and retried.
            _ = serving.into_future() => {}
            () = too_long => tracing::debug!("admin requests were still open at the end"),
        }
    }
}

async fn exposition(State(sources): State<Sources>) -> impl IntoResponse {
    let ready = sources.health.state().is_ready();
    sources.metrics.node.ready.set(u64::from(ready));
    let content_type = [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)];
    (content_type, sources.metrics.encode())
}
