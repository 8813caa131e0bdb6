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
    /// There is no key with its `kid`.
    KeyId,
    /// It was not signed with a key of the server.
    Signature,
    /// It has no `aud`, or one without the audience that the server requires.
    Audience,
    /// Its `aud` is neither a string nor a list of strings.
    AudienceType,
    /// It has no `iss`, or another one than the server requires.
    Issuer,
    /// Its `iss` is not a string.
    IssuerType,
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
                 server's operator to set --jwt-hmac-secret-file, --jwt-public-key-file or \
                 --jwt-key-set-file"
            }
            BadToken::Malformed => "the token is not a signed JSON Web Token; get a new one",
            BadToken::Algorithm => {
                "this server has no key for the token's algorithm; get a token that is signed with \
                 the algorithm of the server's key"
            }
            BadToken::KeyId => {
                "this server has no key with the `kid` of the token; get a token that is signed with a \
                 current key"
            }
            BadToken::Signature => "the token was not signed with this server's key; get a new one",
            BadToken::Audience => {
                "`aud` in the token does not name this server's audience; get a token that is for it"
            }
            BadToken::AudienceType => {
                "`aud` in a token is a string or a list of strings; get a token in which it is"
            }
            BadToken::Issuer => {
                "`iss` in the token is not the issuer that this server accepts; get a token from it"
            }
            BadToken::IssuerType => "`iss` in a token is a string; get a token in which it is",
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
