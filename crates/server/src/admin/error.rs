//! Errors of the admin port as JSON objects, and extractors that report bad requests as such
//! errors.

use std::borrow::Cow;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use crate::hub::ErrorCode;
use crate::protocols::murre_v1::errors::Code;

/// The reason why a request failed, with a code and sentence of the client protocol or of HTTP.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
}

/// An error with a constant message: status, code and sentence.
pub(super) type Known = (StatusCode, &'static str, &'static str);

/// The path, the channel or the connection does not exist.
pub(super) const NOT_FOUND: Known =
    (StatusCode::NOT_FOUND, "not_found", "there is nothing of this name now");
/// The path does not support the method.
pub(super) const BAD_METHOD: Known =
    (StatusCode::METHOD_NOT_ALLOWED, "bad_method", "use a method that the header Allow lists");
/// The request was not read and answered in time.
pub(super) const TOO_SLOW: Known =
    (StatusCode::REQUEST_TIMEOUT, "too_slow", "the request was not read and answered in time");

impl From<Known> for ApiError {
    fn from((status, code, message): Known) -> Self {
        ApiError { status, code, message: message.into() }
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        let status = match code {
            Code::Hub(ErrorCode::Overloaded) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError { status, code: code.name(), message: code.sentence().into() }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Code::Hub(code).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"type": "error", "code": self.code, "message": self.message});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // A 401 must name a scheme (RFC 9110 section 11.6.1).
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An extractor of a JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(body): Json<Box<RawValue>> = Json::from_request(request, state).await?;
        // serde would take an array for the members in their order.
        if !body.get().starts_with('{') {
            return Err(NO_OBJECT.into());
        }
        let read = serde_json::from_str(body.get());
        read.map(JsonBody).map_err(|why| ApiError {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "bad_body",
            message: why.to_string().into(),
        })
    }
}

const NO_OBJECT: Known =
    (StatusCode::UNPROCESSABLE_ENTITY, "bad_body", "the body is a JSON object");

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_long",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "bad_content_type",
            _ => "bad_json",
        };
        ApiError { status, code, message: rejection.body_text().into() }
    }
}

/// An extractor of the members of the query.
pub(super) struct QueryMembers<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryMembers<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(members) = query.map_err(|rejection: QueryRejection| ApiError {
            status: rejection.status(),
            code: "bad_query",
            message: rejection.body_text().into(),
        })?;
        Ok(QueryMembers(members))
    }
}

/// An extractor of the name at the end of the path.
pub(super) struct PathName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection: PathRejection| ApiError {
            status: rejection.status(),
            code: "bad_path",
            message: rejection.body_text().into(),
        })?;
        Ok(PathName(name))
    }
}
