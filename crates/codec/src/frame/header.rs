//! The header of a frame: its layout, and one table of the rules that it can break.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::limits::{FrameLimits, Role};
use super::violation::Violation;

/// Largest payload of a control frame in bytes (RFC 6455 section 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

/// A frame's header, as read.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    reserved: u8,
    pub(crate) opcode: OpCode,
    masked: bool,
    pub(crate) mask: [u8; 4],
    pub(crate) len: u64,
    /// Bytes of the extended length: 0, 2 or 8.
    len_size: usize,
    /// Bytes of the header itself.
    pub(crate) size: usize,
}

impl Header {
    /// Reads the fields; `check` has the rules. `None` if the header is incomplete.
    ///
    /// ```text
    ///  first   second     0, 2 or 8 bytes   0 or 4 bytes
    /// ┌──────┬──────────┬─────────────────┬──────────────┐
    /// │F RSV │ M len (7)│ extended length │     mask     │  RFC 6455 section 5.2
    /// └──────┴──────────┴─────────────────┴──────────────┘
    /// ```
    pub(crate) fn parse(input: &[u8]) -> Option<Header> {
        let &[first, second, ref rest @ ..] = input else { return None };
        let len_size = match second & 0x7F {
            127 => 8,
            126 => 2,
            _ => 0,
        };
        let (len_bytes, rest) = rest.split_at_checked(len_size)?;
        let len = match len_size {
            0 => u64::from(second & 0x7F),
            _ => len_bytes.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
        };
        let masked = second & 0x80 != 0;
        let mask = if masked { *rest.first_chunk()? } else { [0; 4] };
        Some(Header {
            fin: first & 0x80 != 0,
            reserved: first & 0x70,
            opcode: OpCode::from(first & 0x0F),
            masked,
            mask,
            len,
            len_size,
            size: 2 + len_size + if masked { 4 } else { 0 },
        })
    }

    /// Checks the rules that the first two bytes of an incomplete header can break, so that the error
    /// does not wait for the rest.
    pub(crate) fn check_early(
        input: &[u8],
        in_message: bool,
        limits: &FrameLimits,
    ) -> Result<(), Violation> {
        let &[first, second, ..] = input else { return Ok(()) };
        let header = Header {
            fin: first & 0x80 != 0,
            reserved: first & 0x70,
            opcode: OpCode::from(first & 0x0F),
            masked: second & 0x80 != 0,
            mask: [0; 4],
            len: u64::from(second & 0x7F),
            len_size: 0,
            size: 2,
        };
        header.check(in_message, limits)
    }

    /// Checks every rule that a header can break. Rules about its first two bytes come first, so that the
    /// result does not depend on where the input is cut; otherwise in the order of RFC 6455.
    pub(crate) fn check(&self, in_message: bool, limits: &FrameLimits) -> Result<(), Violation> {
        let control = matches!(self.opcode, OpCode::Control(_));
        let unknown = matches!(
            self.opcode,
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_))
        );
        let continuation = self.opcode == OpCode::Data(Data::Continue);
        let first = !control && !continuation;
        let must_mask = limits.role == Role::Server;
        // Longer than 125, or in a form for longer ones.
        let long = self.len_size > 0 || self.len > CONTROL_BYTES_MAX as u64;
        let least = match self.len_size {
            2 => 126,
            8 => 1 << 16,
            _ => 0,
        };
        let rules = [
            (must_mask && !self.masked, Violation::Unmasked), // 5.1
            (!must_mask && self.masked, Violation::Masked),   // 5.1
            (self.reserved != 0, Violation::ReservedBits),    // 5.2
            (unknown, Violation::ReservedOpcode),             // 5.2
            (continuation && !in_message, Violation::ContinuationUnexpected), // 5.4
            (first && in_message, Violation::ContinuationExpected), // 5.4
            (control && !self.fin, Violation::ControlFragmented), // 5.5
            (control && long, Violation::ControlTooLong),     // 5.5
            (self.len < least, Violation::LengthNotMinimal),  // 5.2
            (self.len >> 63 != 0, Violation::LengthNegative), // 5.2
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, violation)) => Err(violation),
            None => Ok(()),
        }
    }
}
