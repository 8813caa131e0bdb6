//! Measures the cost of each form of receiving.
//!
//! `cargo run --release --package murre-core --example receive_forms`
//!
//! An echo server that is nothing but a ring, on one core; its client on another, the same for all
//! forms. Bytes that arrive are copied out, as a shard does, and their buffer is free again before the
//! answer is submitted. At full load completions come in batches; at a fixed rate each one wakes the
//! server. For root it also prints the kernel's memory for a connection on which nothing arrives.
//! Needs Linux 6.1.

mod buffers;
mod end;
#[path = "../setup.rs"]
mod setup;

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use end::{End, Form};

const ROUNDS: usize = 9;
const SPAN: Duration = Duration::from_secs(1);
const CONNS: usize = 64;
/// Connections to count the kernel's memory with: two descriptors each within the usual limits.
const IDLE_CONNS: usize = 4000;
const PAYLOADS: [usize; 2] = [32, 1024];
/// Echoes per second: as many as possible, and so few that the server sleeps between them.
const RATES: [Option<u32>; 2] = [None, Some(40_000)];

const FORMS: [Form; 7] = [
    Form::PollThenRecv,
    Form::PollThenReadFixed,
    Form::PollThenRecvProvided,
    Form::Armed,
    Form::ArmedPollFirst,
    Form::ArmedProvided,
    Form::Multishot,
];

/// Prints the cost of an echo and of an idle connection, for each form in turn.
fn main() -> io::Result<()> {
    for _ in 0..ROUNDS {
        for (payload, rate) in PAYLOADS.into_iter().flat_map(|size| RATES.map(|rate| (size, rate)))
        {
            for form in FORMS {
                println!("{}", measure(form, payload, rate)?);
            }
        }
    }
    if slab_bytes().is_err() {
        return Ok(());
    }
    let (sockets, _peers) = connect(IDLE_CONNS)?;
    let mut sockets = Some(sockets);
    for form in FORMS {
        let mut end = End::new(form, sockets.take().expect("given back"))?;
        let kernel = idle_bytes(&mut end)? as f64 / IDLE_CONNS as f64;
        sockets = Some(end.into_sockets());
        println!("{{\"idle_receive\":\"{form:?}\",\"kernel_bytes_per_connection\":{kernel:.0}}}");
    }
    Ok(())
}

fn measure(form: Form, payload: usize, rate: Option<u32>) -> io::Result<String> {
    let (near, far) = connect(CONNS)?;
    let server = thread::spawn(move || {
        pin(0);
        End::new(form, near)?.echo()
    });
    let client = thread::spawn(move || {
        pin(1);
        End::new(Form::Multishot, far)?.ask(payload, rate)
    });
    let (asked, span) = client.join().expect("no panic")?;
    let (echoes, enters, cpu) = server.join().expect("no panic")?;
    assert_eq!(asked, echoes, "each message is received whole");
    let rate = rate.map_or("null".to_owned(), |rate| rate.to_string());
    let echoes = echoes as f64;
    Ok(format!(
        "{{\"receive\":\"{form:?}\",\"payload\":{payload},\"rate\":{rate},\
         \"echoes_per_second\":{:.0},\"echoes_per_cpu_second\":{:.0},\"enters_per_echo\":{:.3}}}",
        echoes / span.as_secs_f64(),
        echoes / cpu.as_secs_f64(),
        enters as f64 / echoes,
    ))
}

fn connect(count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let mut ends = (Vec::new(), Vec::new());
    for _ in 0..count {
        let far = TcpStream::connect(address)?;
        let (near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        ends.0.push(near);
        ends.1.push(far);
    }
    Ok(ends)
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    // On a machine with one core both ends share it.
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

/// Arms every connection, and disarms it. Returns the bytes of kernel memory that were held.
fn idle_bytes(end: &mut End) -> io::Result<i64> {
    // The kernel frees the memory of the ring before meanwhile.
    thread::sleep(SPAN);
    let before = slab_bytes()?;
    end.arm_idle()?;
    let after = slab_bytes()?;
    end.disarm()?;
    Ok(after - before)
}

/// The bytes of all objects in the kernel's caches, which only root may read.
fn slab_bytes() -> io::Result<i64> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let object_bytes = |line: &str| -> Option<i64> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let active: i64 = fields.next()?.parse().ok()?;
        let size: i64 = fields.nth(1)?.parse().ok()?;
        Some(active * size)
    };
    Ok(text.lines().filter_map(object_bytes).sum())
}
