//! The spool: a file in which ended sessions wait while PostgreSQL is away.
//!
//! A record is the length of its payload (4 bytes, little-endian), a checksum of it (8 bytes, SipHash-1-3), and the
//! payload: begin and end in milliseconds since 1970 (8 bytes each) and the name of the user. Records are added at
//! the end and read from the start; when all are in the database the file is emptied. A record that was in the
//! database already is written again after a kill, which changes nothing there.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::End;
use crate::settings::Spooled;
use crate::store::{StoreError, lock};
use crate::tracker::Ended;

/// The file, locked as long as this exists.
pub(crate) struct Spool {
    settings: Spooled,
    file: File,
    /// Records before this are in the database.
    read_to: u64,
    /// The end of the last whole record.
    end: u64,
    /// Records between the two.
    records: u64,
    synced_at: Instant,
    is_synced: bool,
}

/// Bytes of a record before its payload.
const HEAD: usize = 12;
/// The payload without the name.
const TIMES: usize = 16;
/// A longer payload is damage: names have up to 255 bytes.
const PAYLOAD_MAX: usize = 64 << 10;
/// The time after which what was added is on the disk.
const SYNC: Duration = Duration::from_secs(1);

impl Spool {
    /// Opens the file, or makes it. What cannot be read at its end (a record that a kill has cut off, or damage) is
    /// moved to a file with `-damaged` after its name.
    pub(crate) fn open(settings: &Spooled) -> Result<Self, StoreError> {
        let path = &settings.file;
        let wrong = |problem: &dyn std::fmt::Display| {
            StoreError::new(format_args!("spool {}", path.display()), problem)
        };
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| {
            wrong(&format_args!(
                "{error}; its folder must exist, and the server must be able to write in it"
            ))
        })?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(wrong(&"another server writes it: give each server a file of its own"));
            }
            Err(TryLockError::Error(error)) => return Err(wrong(&error)),
        }
        let (settings, synced_at) = (settings.clone(), Instant::now());
        let mut spool =
            Spool { settings, file, read_to: 0, end: 0, records: 0, synced_at, is_synced: true };
        spool.check().map_err(|error| wrong(&error))?;
        Ok(spool)
    }

    /// Finds the end of the last whole record.
    fn check(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = io::BufReader::new(&self.file);
        while let Some((_, bytes)) = read(&mut reader)? {
            self.end += bytes;
            self.records += 1;
        }
        if self.end < length {
            self.set_aside(length - self.end)?;
        }
        Ok(())
    }

    /// Moves what is after the last whole record to another file.
    fn set_aside(&mut self, bytes: u64) -> io::Result<()> {
        let mut name = self.settings.file.clone().into_os_string();
        name.push("-damaged");
        let mut damaged = OpenOptions::new().create(true).append(true).open(&name)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        io::copy(&mut (&self.file).take(bytes), &mut damaged)?;
        damaged.sync_all()?;
        self.file.set_len(self.end)?;
        let damaged = Path::new(&name).display();
        tracing::warn!(bytes, %damaged, "the end of the spool cannot be read: a kill has cut it off, or it is damaged");
        Ok(())
    }

    /// Adds sessions, as many as there is room for. Returns their number.
    pub(crate) fn add(&mut self, ended: &[Ended]) -> io::Result<usize> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for record in ended.iter().map(record) {
            if self.end + (bytes.len() + record.len()) as u64 > self.settings.bytes_max {
                break;
            }
            bytes.extend(record);
            count += 1;
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&bytes)?;
        self.end += bytes.len() as u64;
        self.records += count as u64;
        self.is_synced &= bytes.is_empty();
        Ok(count)
    }

    /// Puts what was added on the disk, if that is due.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.is_synced && self.synced_at.elapsed() >= SYNC {
            self.file.sync_data()?;
            (self.is_synced, self.synced_at) = (true, Instant::now());
        }
        Ok(())
    }

    /// The next sessions, as many at most, and where they end.
    pub(crate) fn next(&mut self, most: usize) -> io::Result<(Vec<Ended>, u64)> {
        let (mut ended, mut to) = (Vec::new(), self.read_to);
        self.file.seek(SeekFrom::Start(to))?;
        let mut reader = io::BufReader::new((&self.file).take(self.end - to));
        while ended.len() < most
            && let Some((session, bytes)) = read(&mut reader)?
        {
            ended.push(session);
            to += bytes;
        }
        if ended.is_empty() && to < self.end {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has changed"));
        }
        Ok((ended, to))
    }

    /// Notes that the database has so many sessions, to this place in the file.
    pub(crate) fn written(&mut self, to: u64, records: usize) -> io::Result<()> {
        (self.read_to, self.records) = (to, self.records.saturating_sub(records as u64));
        if self.read_to == self.end {
            self.file.set_len(0)?;
            (self.read_to, self.end, self.records) = (0, 0, 0);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read_to == self.end
    }

    /// Sessions that wait.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// What is there stays for the next run.
    pub(crate) fn close(self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn record(Ended { user, join_at, terminate_at, .. }: &Ended) -> Vec<u8> {
    let mut payload = Vec::with_capacity(TIMES + user.len());
    payload.extend(join_at.to_le_bytes());
    payload.extend(terminate_at.to_le_bytes());
    payload.extend(user.as_bytes());
    let mut record = Vec::with_capacity(HEAD + payload.len());
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(checksum(&payload).to_le_bytes());
    record.extend(payload);
    record
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Reads a record. `None` where there is no whole one.
fn read(reader: &mut impl Read) -> io::Result<Option<(Ended, u64)>> {
    let mut head = [0; HEAD];
    if !fill(reader, &mut head)? {
        return Ok(None);
    }
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
    if !(TIMES..=PAYLOAD_MAX).contains(&length) {
        return Ok(None);
    }
    let mut payload = vec![0; length];
    if !fill(reader, &mut payload)? || checksum(&payload).to_le_bytes() != *sum {
        return Ok(None);
    }
    let (times, user) = payload.split_at(TIMES);
    let time = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let (join_at, terminate_at) = (time(&times[..8]), time(&times[8..]));
    let Ok(user) = std::str::from_utf8(user) else { return Ok(None) };
    let ended = Ended { user: user.into(), join_at, terminate_at, how: End::Left };
    Ok(Some((ended, (HEAD + length) as u64)))
}

/// Reads all of the bytes. Returns whether there were so many.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn ended(number: u64) -> Ended {
        let user = format!("user {number}").as_str().into();
        Ended { user, join_at: number, terminate_at: number + 1, how: End::Left }
    }

    fn settings(test: &str, bytes_max: u64) -> Spooled {
        let file = std::env::temp_dir().join(format!("murre-spool-{}-{test}", std::process::id()));
        let _ = fs::remove_file(&file);
        Spooled { file, bytes_max }
    }

    /// Sessions are read in the order in which they were added, also by a later run; a file that is cut off or
    /// damaged at any byte gives those before, and the rest is kept beside it.
    #[test]
    fn what_was_added_is_read() {
        let settings = settings("read", 1 << 20);
        let all: Vec<_> = (0..10).map(ended).collect();
        let mut spool = Spool::open(&settings).expect("a new file");
        assert_eq!(spool.add(&all).expect("written"), 10);
        let (first, to) = spool.next(3).expect("readable");
        assert_eq!(first, all[..3]);
        spool.written(to, 3).expect("noted");
        assert_eq!((spool.next(99).expect("readable").0, spool.records()), (all[3..].to_vec(), 7));
        assert!(Spool::open(&settings).is_err(), "another one has it");
        drop(spool);
        let whole = fs::read(&settings.file).expect("a file");
        let record = whole.len() / all.len();
        for at in 0..whole.len() {
            for is_cut in [true, false] {
                let mut bytes = whole.clone();
                if is_cut {
                    bytes.truncate(at)
                } else {
                    bytes[at] ^= 1
                }
                fs::write(&settings.file, &bytes).expect("written");
                let mut spool = Spool::open(&settings).expect("a file");
                let (found, to) = spool.next(99).expect("readable");
                assert_eq!(found, all[..at / record], "{at} {is_cut}");
                spool.written(to, found.len()).expect("noted");
                assert!(spool.is_empty() && spool.records() == 0);
                assert_eq!(fs::metadata(&settings.file).expect("a file").len(), 0);
            }
        }
    }

    /// The file stays within its bound, and has room again when it was emptied.
    #[test]
    fn the_file_has_a_bound() {
        let settings = settings("bound", 100);
        let mut spool = Spool::open(&settings).expect("a new file");
        let all: Vec<_> = (0..5).map(ended).collect();
        assert_eq!(spool.add(&all).expect("written"), 2);
        assert_eq!(spool.add(&all[2..]).expect("nothing to write"), 0);
        assert!(spool.bytes() <= 100);
        let (found, to) = spool.next(9).expect("readable");
        spool.written(to, found.len()).expect("noted");
        assert_eq!(spool.add(&all[2..]).expect("written"), 2);
    }
}
