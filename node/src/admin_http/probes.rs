//! `/livez` and `/readyz`.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde::Serialize;

use super::{HealthState, Sources};

/// The body of `/livez`.
#[derive(Serialize)]
struct Liveness {
    live: bool,
    /// Why not; left out while it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Every reason why not.
    reasons: Vec<Reason>,
    /// What should be known although it serves.
    warnings: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    /// Stable, for scripts.
    code: &'static str,
    /// Left out when the whole node is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    /// For people.
    message: String,
}

impl From<HealthState> for Readiness {
    fn from(state: HealthState) -> Self {
        let ready = state.is_ready();
        let failure = state.failure.map(|message| Reason {
            code: "failed",
            partition: None,
            message,
        });
        let troubles = state.troubles.into_iter().map(|(trouble, message)| Reason {
            code: trouble.kind.code(),
            partition: trouble.partition,
            message,
        });
        let warnings = state.warnings.into_iter().map(|(warning, message)| Reason {
            code: warning.code(),
            partition: None,
            message,
        });
        Self {
            ready,
            reasons: failure.into_iter().chain(troubles).collect(),
            warnings: warnings.collect(),
        }
    }
}

pub(super) async fn livez(State(sources): State<Sources>) -> impl IntoResponse {
    let state = sources.health.state();
    let body = Liveness {
        live: state.is_live(),
        failure: state.failure,
    };
    (status(body.live), Json(body))
}

pub(super) async fn readyz(State(sources): State<Sources>) -> impl IntoResponse {
    let body = Readiness::from(sources.health.state());
    (status(body.ready), Json(body))
}

fn status(good: bool) -> StatusCode {
    match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}
