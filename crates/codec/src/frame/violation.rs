//! The rules of RFC 6455 that a peer can break.

use tungstenite::protocol::frame::coding::CloseCode;

/// The peer broke the protocol: the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A client must mask.
    Unmasked,
    /// A server must not mask.
    Masked,
    /// Bits for extensions that were not negotiated.
    ReservedBits,
    /// An opcode that is not defined.
    ReservedOpcode,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A length with its highest bit set.
    LengthNegative,
    /// A new message inside another.
    ContinuationExpected,
    /// The continuation of nothing.
    ContinuationUnexpected,
    /// A control frame in pieces.
    ControlFragmented,
    /// A control frame with more than 125 bytes.
    ControlTooLong,
    /// A message longer than the limit.
    MessageTooLong,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A close frame of one byte.
    CloseTooShort,
    /// A close code that may not be sent.
    CloseCode,
}

impl Violation {
    /// The status code to close with (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Violation::MessageTooLong => CloseCode::Size,
            Violation::NotUtf8 => CloseCode::Invalid,
            _ => CloseCode::Protocol,
        }
    }

    /// What to tell the peer.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Unmasked => "a client's frames must be masked",
            Violation::Masked => "a server's frames must not be masked",
            Violation::ReservedBits => "reserved bits are set",
            Violation::ReservedOpcode => "unknown opcode",
            Violation::LengthNotMinimal => "length not in its shortest form",
            Violation::LengthNegative => "length too large",
            Violation::ContinuationExpected => "new message inside another",
            Violation::ContinuationUnexpected => "continuation of nothing",
            Violation::ControlFragmented => "control frame in pieces",
            Violation::ControlTooLong => "control frame too long",
            Violation::MessageTooLong => "message too long",
            Violation::NotUtf8 => "text is not UTF-8",
            Violation::CloseTooShort => "close frame of one byte",
            Violation::CloseCode => "close code that may not be sent",
        }
    }
}
