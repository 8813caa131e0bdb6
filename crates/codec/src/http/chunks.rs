//! Bodies in chunks, for what is sent before its length is known (RFC 9112 section 7.1).

/// Ends a body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Bytes that a chunk of less than 4 GiB takes beside its data, at most.
pub const CHUNK_BYTES_BESIDE_DATA: usize = 8 + 4;

/// Appends one chunk, whose data `write` appends. Without data nothing is appended: an empty chunk
/// would end the body.
pub fn write_chunk(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let size = out.len() - start;
    if size > 0 {
        let line = format!("{size:x}\r\n");
        out.splice(start..start, line.bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size is in hexadecimal digits before the data, and nothing is no chunk.
    #[test]
    fn chunks_have_their_size_in_front() {
        let mut out = b"head".to_vec();
        write_chunk(&mut out, |out| out.extend_from_slice(b"data\r\n"));
        write_chunk(&mut out, |_| {});
        write_chunk(&mut out, |out| out.extend_from_slice(&[b'x'; 300]));
        out.extend_from_slice(LAST_CHUNK);
        let expected = format!("head6\r\ndata\r\n\r\n12c\r\n{}\r\n0\r\n\r\n", "x".repeat(300));
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
