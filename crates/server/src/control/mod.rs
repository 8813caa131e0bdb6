//! The control plane: the admin port and the tasks that monitor the server. They run on one thread
//! with its own runtime, apart from the shards.
//!
//! Each task runs as long as the process. If a task ends by an error or a panic, [`run`] returns an
//! error and the process ends. Without the memory watch, for instance, the server would use the
//! last decision of the watch for ever.

pub(crate) mod memory;
mod sampler;
mod token_keys;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use murre_core::host::Io;
use murre_core::ring::allocator;
use murre_core::server::threads;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

pub(crate) use self::sampler::{SAMPLE_INTERVAL, Sampler};
pub(crate) use self::token_keys::{KeySetUrl, TokenKeys};

/// A task of the control plane, with its name in errors.
pub(crate) struct Task {
    name: &'static str,
    run: Pin<Box<dyn Future<Output = Never> + Send>>,
}

/// The result of a task, which ends only with an error.
pub(crate) type Never = io::Result<Infallible>;

impl Task {
    /// A task that polls `run` in the runtime of the control plane.
    pub(crate) fn new(
        name: &'static str,
        run: impl Future<Output = Never> + Send + 'static,
    ) -> Self {
        Task { name, run: Box::pin(run) }
    }

    /// A task that calls `work` now and after each interval. `work` must not block: it delays the
    /// other tasks.
    pub(crate) fn every(
        name: &'static str,
        interval: Duration,
        mut work: impl FnMut(Instant) + Send + 'static,
    ) -> Self {
        Self::new(name, async move {
            let mut interval = tokio::time::interval(interval);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                work(Instant::now());
            }
        })
    }

    /// A task that gives the memory that the allocator holds after a burst back to the kernel.
    pub(crate) fn trim_heap() -> Self {
        Self::every("heap trim", TRIM_INTERVAL, |_| allocator::give_back())
    }
}

const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// Runs `tasks` on this thread until one of them ends. The runtime has a ring if `io` is io_uring.
///
/// # Errors
/// Every return is an error: there is no runtime, or a task has ended. The error names the task and
/// the reason.
pub(crate) fn run(io: Io, tasks: Vec<Task>) -> io::Result<()> {
    let runtime = match io {
        Io::Uring | Io::UringPlain => {
            tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))
                .inspect_err(|error| tracing::debug!(%error, "no ring for the control plane"))
                .ok()
        }
        Io::Epoll => None,
    };
    match runtime {
        Some(runtime) => Err(runtime.block_on(first_end(tasks))),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Err(runtime.block_on(first_end(tasks)))
        }
    }
}

/// Few entries are enough: the ring is for files and databases; tokio handles the admin sockets.
const RING_ENTRIES: u32 = 64;

/// Runs `tasks` until one ends, and returns its name and reason.
async fn first_end(tasks: Vec<Task>) -> io::Error {
    let mut running = JoinSet::new();
    let names: Vec<(Id, &str)> =
        tasks.into_iter().map(|task| (running.spawn(task.run).id(), task.name)).collect();
    let Some(ended) = running.join_next_with_id().await else {
        return io::Error::other("it has no tasks");
    };
    let (id, why) = match ended {
        Ok((id, Err(error))) => (id, error.to_string()),
        Ok((_, Ok(never))) => match never {},
        Err(error) => (error.id(), panicked(error)),
    };
    let name = names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name);
    io::Error::other(format!("its task '{name}' ended: {why}"))
}

fn panicked(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => threads::panicked(&*panic),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Both kinds of runtime. The first falls back to the second where io_uring is refused.
    const RUNTIMES: [Io; 2] = [Io::Uring, Io::Epoll];

    /// Runs a control plane with `task` and with tasks that do not end, and returns how its thread
    /// ends.
    fn end_with(io: Io, task: Task) -> threads::Ended {
        let (sender, receiver) = mpsc::channel();
        let forever = Task::every("forever", Duration::from_millis(1), |_| {});
        let tasks = vec![forever, task, Task::trim_heap()];
        let ended = move |how| sender.send(how).expect("the test waits");
        threads::start("control".into(), 1 << 20, move || run(io, tasks), ended).expect("a thread");
        receiver.recv_timeout(Duration::from_secs(180)).expect("the thread's end is reported")
    }

    /// A task that panics after some turns ends the control plane with the message of the panic.
    #[test]
    fn a_panicking_task_ends_the_control_plane() {
        for io in RUNTIMES {
            let mut turns = 0;
            let watch = Task::every("watch", Duration::from_millis(1), move |_| {
                turns += 1;
                assert!(turns < 3, "turn {turns} is too many");
            });
            let why = "its task 'watch' ended: it panicked: turn 3 is too many";
            assert_eq!(end_with(io, watch), Err(why.into()));
        }
    }

    /// A task that returns an error ends the control plane with that error.
    #[test]
    fn a_failing_task_ends_the_control_plane() {
        for io in RUNTIMES {
            let port = Task::new("port", async { Err(io::Error::other("no socket")) });
            assert_eq!(end_with(io, port), Err("its task 'port' ended: no socket".into()));
        }
    }
}
