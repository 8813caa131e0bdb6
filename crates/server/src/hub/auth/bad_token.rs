//! Why a token is refused.

/// Each of these is `bad_token` to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// The server has no keys.
    NoKeys,
    /// It is not a signed JSON Web Token, or one with extensions that we do not know.
    Malformed,
    /// There is no key for its algorithm.
    Algorithm,
    /// It was not signed with our key.
    Signature,
    /// It has no `sub`, or one that is no name: empty, too long, or with control characters.
    Subject,
    /// Its `sub` is not a string.
    SubjectType,
    /// Its `exp` is not a number.
    ExpiryType,
    /// Its `nbf` is not a number.
    NotBeforeType,
    /// Its `nbf` is still to come.
    TooEarly,
    /// Its `exp` has passed.
    Expired,
}

impl BadToken {
    /// What is wrong and what helps.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BadToken::NoKeys => {
                "this server has no keys to check tokens with; connect without a token, or ask the \
                 server's operator to set --jwt-hmac-secret-file or --jwt-public-key-file"
            }
            BadToken::Malformed => "the token is not a signed JSON Web Token; get a new one",
            BadToken::Algorithm => {
                "this server has no key for the token's algorithm; get a token that is signed with \
                 the algorithm of the server's key"
            }
            BadToken::Signature => "the token was not signed with this server's key; get a new one",
            BadToken::Subject => {
                "`sub` in a token is the name of the user, of 1 to 255 bytes without control \
                 characters; get a token that has one"
            }
            BadToken::SubjectType => {
                "`sub` in a token is a string, the name of the user; get a token in which it is"
            }
            BadToken::ExpiryType => {
                "`exp` in a token is a number, in seconds since 1970; get a token in which it is"
            }
            BadToken::NotBeforeType => {
                "`nbf` in a token is a number, in seconds since 1970; get a token in which it is"
            }
            BadToken::TooEarly => "the token is not valid yet; try again later, or get another one",
            BadToken::Expired => "the token has expired; get a new one",
        }
    }
}
