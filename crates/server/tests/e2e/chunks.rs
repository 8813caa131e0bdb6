//! A reader of a chunked body (RFC 9112 section 7.1), for test clients.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result};

/// A reader of the data of a body's chunks.
pub(crate) struct Chunks<R> {
    pub(crate) inner: BufReader<R>,
    /// The bytes of the current chunk that have not been read.
    left: usize,
    /// Whether the last chunk has been read. A body that is cut off ends without it.
    pub(crate) ended: bool,
}

impl<R: Read> Chunks<R> {
    /// A reader of the chunks that `inner` reads.
    pub(crate) fn new(inner: BufReader<R>) -> Self {
        Chunks { inner, left: 0, ended: false }
    }

    /// Begins the next chunk.
    fn begin(&mut self) -> Result<()> {
        let mut line = String::new();
        match self.inner.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            other => other?,
        };
        let digits = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?} is cut off"));
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line:?}");
        self.left = usize::from_str_radix(digits, 16).expect("a size");
        if self.left == 0 {
            self.end_of_line()?;
            self.ended = true;
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<()> {
        let mut end = [0; 2];
        self.inner.read_exact(&mut end)?;
        assert_eq!(&end, b"\r\n", "the end of a chunk");
        Ok(())
    }
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.left == 0 && !self.ended {
            self.begin()?;
        }
        let most = into.len().min(self.left);
        let read = self.inner.read(&mut into[..most])?;
        assert!(read > 0 || most == 0, "a chunk is cut off");
        self.left -= read;
        if read > 0 && self.left == 0 {
            self.end_of_line()?;
        }
        Ok(read)
    }
}
