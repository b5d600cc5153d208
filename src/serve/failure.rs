//! Errors as responses: a status, and the one line as text.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// What a client is told about `error`.
pub(super) fn response(error: &Error) -> Response {
    let status = status(error);
    let mut response = line(status, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// One line of text.
pub(super) fn line(status: StatusCode, text: String) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, text + "\n").into_response()
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::InvalidPath { .. } => StatusCode::BAD_REQUEST,
        Error::NotFound { .. } | Error::NotRetained { .. } => StatusCode::NOT_FOUND,
        // What may work a moment later.
        Error::TooLarge { .. }
        | Error::Pinned { .. }
        | Error::Pressure { .. }
        | Error::Deadline { .. }
        | Error::QueueFull { .. }
        | Error::Failed { .. }
        | Error::ShutDown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;

    #[test]
    fn every_error_has_its_status_and_what_may_pass_says_when_to_come_back() {
        let check = |error: Error, status: u16| {
            let response = response(&error);
            assert_eq!(response.status().as_u16(), status, "{error}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503, "{error}");
        };
        check(Error::InvalidPath { path: "..".into(), why: "it has a '..' part" }, 400);
        check(Error::NotFound { what: "a".into(), generation: Generation(1) }, 404);
        check(Error::TooLarge { what: "a".into(), needed_bytes: 2, limit_bytes: 1 }, 503);
        check(Error::Deadline { what: "a".into(), after: std::time::Duration::ZERO }, 503);
        check(Error::QueueFull { limit: 1 }, 503);
        check(Error::Failed { cause: "x".into() }, 503);
        check(Error::ShutDown, 503);
        check(Error::corrupt("a.loft", "x"), 500);
        check(Error::Quarantined { what: "a".into(), attempts: 5, cause: "x".into() }, 500);
    }
}
