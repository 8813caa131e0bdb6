//! Where records go: a file, or stdout.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Where the record goes. Opened before the run: a run without a record is for nothing.
pub(crate) enum Sink {
    Stdout,
    File(File),
}

impl Sink {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Sink> {
        match path {
            None => Ok(Sink::Stdout),
            Some(path) => Ok(Sink::File(OpenOptions::new().append(true).create(true).open(path)?)),
        }
    }

    pub(crate) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match self {
            // One write, so that lines of runs at the same time do not mix.
            Sink::File(file) => file.write_all(&line),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&line)?;
                stdout.flush()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a file keeps what it holds and gets one line a record.
    #[test]
    fn records_are_appended_line_by_line() {
        let path = std::env::temp_dir().join(format!("murre-load-record-{}", std::process::id()));
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write(&[1, 2]).unwrap();
        Sink::open(Some(&path)).unwrap().write(&"three").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "[1,2]\n\"three\"\n");
    }
}
