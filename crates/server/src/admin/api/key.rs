//! The API's key: `Authorization: Bearer KEY` (RFC 6750 section 2.1).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin::Admin;
use crate::admin::error::{ApiError, Known};

/// The key: the first line of the file that `--api-key-file` names.
pub(crate) struct ApiKey(String);

impl ApiKey {
    /// Reads the key from the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or the key is so short that it can be guessed.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let told = |what: &str| format!("--api-key-file {}: {what}", path.display());
        let text = fs::read_to_string(path)
            .map_err(|error| told(&format!("{error}; check the path and its permissions")))?;
        let key = text.lines().next().unwrap_or_default();
        if key.len() < KEY_BYTES_MIN {
            return Err(told(
                "the key, its first line, is shorter than 12 bytes; make a longer one",
            ));
        }
        Ok(ApiKey(key.to_owned()))
    }

    /// Compares in a time that does not reveal the position of the difference.
    fn is(&self, given: &str) -> bool {
        let (given, key) = (given.as_bytes(), self.0.as_bytes());
        let differences = given.iter().zip(key).fold(0, |sum, (given, key)| sum | (given ^ key));
        given.len() == key.len() && differences == 0
    }
}

const KEY_BYTES_MIN: usize = 12;

/// Answers requests without the right key with 401, and all requests with 403 if the server has no
/// key.
pub(super) async fn authorize(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = &admin.api.key else { return ApiError::from(NO_KEY).into_response() };
    let header = request.headers().get(header::AUTHORIZATION);
    match header.and_then(|value| bearer(value.to_str().ok()?)) {
        Some(given) if key.is(given) => next.run(request).await,
        _ => ApiError::from(WRONG_KEY).into_response(),
    }
}

/// The credentials behind the scheme `Bearer`, in any case of letters (RFC 9110 section 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| credentials.trim_start_matches(' '))
}

const NO_KEY: Known = (
    StatusCode::FORBIDDEN,
    "no_key",
    "the API is off; start the server with --api-key-file to turn it on",
);
const WRONG_KEY: Known = (
    StatusCode::UNAUTHORIZED,
    "wrong_key",
    "send the server's API key as `Authorization: Bearer KEY`",
);

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheme is read in any case of letters and ends with spaces; other schemes give no key.
    #[test]
    fn the_scheme_is_read_in_any_case() {
        for given in ["Bearer key", "bearer key", "BEARER   key"] {
            assert_eq!(bearer(given), Some("key"), "{given}");
        }
        for given in ["Bearerkey", "Bearer", "Basic key", "", " Bearer key"] {
            assert_eq!(bearer(given), None, "{given}");
        }
    }

    /// Only the whole key is accepted.
    #[test]
    fn keys_are_compared_whole() {
        let key = ApiKey("correct horse".into());
        assert!(key.is("correct horse"));
        for wrong in ["", "correct horsf", "correct hors", "correct horse "] {
            assert!(!key.is(wrong), "{wrong:?}");
        }
    }
}
