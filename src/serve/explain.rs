//! `/explain`: why an asset is as it is.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::{Face, failure, json};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    path: String,
}

pub(super) async fn explain(State(face): State<Arc<Face>>, Query(asked): Query<Asked>) -> Response {
    match face.runtime.explain(&asked.path).await {
        Ok(explained) => json(&explained),
        Err(error) => failure::response(&error),
    }
}
