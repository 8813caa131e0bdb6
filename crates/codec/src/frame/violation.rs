//! The rules of RFC 6455 that a peer can break.

use tungstenite::protocol::frame::coding::CloseCode;

/// The rule of RFC 6455 that a peer broke. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A client's frame without a mask (section 5.1).
    Unmasked,
    /// A server's frame with a mask (section 5.1).
    Masked,
    /// Reserved bits set, although no extension was negotiated (section 5.2).
    ReservedBits,
    /// An opcode that is not defined (section 5.2).
    ReservedOpcode,
    /// A length not in its shortest form (section 5.2).
    LengthNotMinimal,
    /// A length of 64 bits whose highest bit is set (section 5.2).
    LengthNegative,
    /// A new message before the last frame of another (section 5.4).
    ContinuationExpected,
    /// A continuation frame outside a message (section 5.4).
    ContinuationUnexpected,
    /// A fragmented control frame (section 5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes of payload (section 5.5).
    ControlTooLong,
    /// A message longer than [`FrameLimits::max_message_bytes`](super::FrameLimits::max_message_bytes).
    MessageTooLong,
    /// A text, or the reason of a close frame, that is not UTF-8 (section 8.1).
    NotUtf8,
    /// A close frame with a payload of one byte (section 5.5.1).
    CloseTooShort,
    /// A close code that an endpoint must not send (section 7.4).
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

    /// The reason for the close frame: at most 123 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Unmasked => "a client's frames must be masked",
            Violation::Masked => "a server's frames must not be masked",
            Violation::ReservedBits => "reserved bits are set",
            Violation::ReservedOpcode => "unknown opcode",
            Violation::LengthNotMinimal => "length not in its shortest form",
            Violation::LengthNegative => "length too large",
            Violation::ContinuationExpected => "new message inside another",
            Violation::ContinuationUnexpected => "continuation outside a message",
            Violation::ControlFragmented => "fragmented control frame",
            Violation::ControlTooLong => "control frame too long",
            Violation::MessageTooLong => "message too long",
            Violation::NotUtf8 => "text is not UTF-8",
            Violation::CloseTooShort => "close frame of one byte",
            Violation::CloseCode => "close code that must not be sent",
        }
    }
}
