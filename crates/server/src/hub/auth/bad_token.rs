//! The reasons why a token is refused.

/// The reason why a token is refused. Clients get the error code `bad_token` for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// The server has no keys to verify tokens with.
    NoKeys,
    /// The server has not fetched its keys yet.
    NoKeysYet,
    /// The token is not a signed JSON Web Token, or it requires an extension that the server does
    /// not support.
    Malformed,
    /// The server has no key for the algorithm of the token.
    Algorithm,
    /// The server has no key with the `kid` of the token.
    KeyId,
    /// The token has no `kid`, and the server has too many keys for its algorithm to try them all.
    NoKeyId,
    /// The signature does not fit any key of the server.
    Signature,
    /// `aud` is missing, or does not name the audience that the server requires.
    Audience,
    /// `aud` is neither a string nor a list of strings.
    AudienceType,
    /// `iss` is missing, or is not the issuer that the server requires.
    Issuer,
    /// `iss` is not a string.
    IssuerType,
    /// `sub` is missing, or is not a valid name: it is empty, too long, or has control characters.
    Subject,
    /// `sub` is not a string.
    SubjectType,
    /// `exp` is not a number.
    ExpiryType,
    /// `nbf` is not a number.
    NotBeforeType,
    /// The time `nbf` lies in the future.
    TooEarly,
    /// The time `exp` has passed.
    Expired,
    /// `channels` is neither a list of patterns nor an object of patterns with lists of rights.
    Channels,
    /// `subs` is not an object of channels, or a channel is there twice.
    Subs,
    /// A pattern is empty, too long, has control characters, or is there twice.
    Pattern,
    /// `channels` has a right that does not exist.
    UnknownRight,
    /// The token has too many patterns, or too long ones.
    TooManyPatterns,
    /// `channel` is not the name of a channel.
    Channel,
    /// The token is for a subscription, and was presented for a connection.
    ForSubscription,
    /// The token is for a connection, and was presented for a subscription.
    ForConnection,
    /// The token is for the subscription to another channel.
    OtherChannel,
    /// The token is for a subscription of another user.
    OtherUser,
}

impl BadToken {
    /// The message for the client: the problem and the remedy.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BadToken::NoKeys => {
                "this server has no keys to check tokens with; connect without a token, or ask the \
                 server's operator to set --jwt-hmac-secret-file, --jwt-public-key-file, \
                 --jwt-key-set-file or --jwt-key-set-url"
            }
            BadToken::NoKeysYet => {
                "this server could not fetch its keys yet; try again in some seconds, or ask the \
                 server's operator to look into its log"
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
            BadToken::NoKeyId => {
                "the token names no key (`kid`), and this server has too many keys for its algorithm to \
                 try them all; get a token whose header has the `kid` of its key"
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
            BadToken::Channels => {
                "`channels` in a token is a list of patterns, or an object with a list of rights for \
                 each pattern; get a token in which it is"
            }
            BadToken::Subs => {
                "`subs` in a token is an object with an object for each channel, once and without \
                 `*` at the end; get a token in which it is"
            }
            BadToken::Pattern => {
                "a pattern in `channels` has 1 to 255 bytes without control characters, and is there \
                 once; get a token in which it is so"
            }
            BadToken::UnknownRight => {
                "a right in `channels` is subscribe, publish, presence or history; get a token with \
                 these"
            }
            BadToken::TooManyPatterns => {
                "`channels` and `subs` have at most 100 patterns and 4,096 bytes; get a token with \
                 fewer, as by `*` at the end of a pattern"
            }
            BadToken::Channel => {
                "`channel` in a token is the name of one channel; get a token in which it is"
            }
            BadToken::ForSubscription => {
                "the token is for the subscription to one channel; send it with `subscribe`, and a \
                 token without `channel` for the connection"
            }
            BadToken::ForConnection => {
                "the token has no `channel`, so it is not for a subscription; get one for this channel"
            }
            BadToken::OtherChannel => {
                "`channel` in the token is another channel; get a token for this one"
            }
            BadToken::OtherUser => {
                "`sub` in the token is not the user of this connection; get a token for this user"
            }
        }
    }
}
