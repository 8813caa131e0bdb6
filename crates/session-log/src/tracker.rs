//! The users that are there, and what has changed since the last batch. It reads no clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::End;

/// A time, on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since 1970, which may jump.
    pub(crate) unix_ms: u64,
    /// Milliseconds of a clock that never jumps.
    pub(crate) ms: u64,
}

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) user: Arc<str>,
    /// Milliseconds since 1970.
    pub(crate) join_at: u64,
    /// When the last connection ended, if the user is not there.
    pub(crate) left_at: Option<u64>,
    /// The connections of the user to this server.
    pub(crate) connections: u32,
    /// Whether no batch had this session before.
    pub(crate) is_new: bool,
}

/// A session that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) user: Arc<str>,
    pub(crate) join_at: u64,
    pub(crate) terminate_at: u64,
    pub(crate) how: End,
}

/// A session that a former run has left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOpen {
    pub(crate) user: Arc<str>,
    pub(crate) join_at: u64,
    /// When the user was there for the last time.
    pub(crate) left_at: u64,
    /// Whether the former run did not see the user leave.
    pub(crate) died: bool,
}

/// What a transaction writes: first the sessions that have ended, then those that are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// No session is open but those of this batch and of later ones, until the first with all the rest.
    pub(crate) forget_open: bool,
    /// Whether all sessions that have changed are in this batch or were in one before.
    pub(crate) is_rest: bool,
    /// Whether the sessions that have ended waited in a spool.
    pub(crate) is_replayed: bool,
    pub(crate) ended: Vec<Ended>,
    pub(crate) open: Vec<Open>,
}

impl Batch {
    /// Rows that it writes.
    pub(crate) fn rows(&self) -> usize {
        self.ended.len() + self.open.len()
    }
}

/// The users that are there, or have left within the gap.
pub(crate) struct Tracker {
    gap_ms: u64,
    ended_bytes_max: usize,
    users: HashMap<Arc<str>, User>,
    /// Users whose rows must be written, each with the number of its session: one whose session has ended
    /// since is void.
    changed: VecDeque<(u64, Arc<str>)>,
    /// The number of the last session.
    session: u64,
    /// For each user that has left the end of the gap on the clock that never jumps, or an earlier time. One
    /// entry for each user at most; it may be back, or away.
    gaps: BinaryHeap<Reverse<(u64, Arc<str>)>>,
    ended: VecDeque<Ended>,
    /// Bytes of `ended`.
    ended_bytes: usize,
    /// Ended sessions that were dropped.
    dropped: u64,
    /// Whether ended sessions were dropped whose users may be in the database as open ones.
    has_dropped: bool,
    /// Whether all users have left because the server ends.
    is_closed: bool,
    /// Whether all sessions end, whatever is left of their gaps.
    ends_all: bool,
}

/// A user with an open session.
struct User {
    /// Tells this session from other ones of the user.
    session: u64,
    join_at: u64,
    /// When the user was there for the last time, in milliseconds since 1970, if it has no connections.
    left_at: u64,
    /// The end of its gap on the clock that never jumps, if it has no connections.
    gap_ends: u64,
    connections: u32,
    is_changed: bool,
    /// Whether a batch had its session.
    is_sent: bool,
    /// Whether it has an entry in `gaps`.
    has_gap: bool,
    how: End,
}

impl User {
    /// A user without connections.
    fn new(session: u64, join_at: u64) -> Self {
        let (left_at, gap_ends, connections) = (join_at, 0, 0);
        let how = End::Left;
        let (is_changed, is_sent, has_gap) = (false, false, false);
        User { session, join_at, left_at, gap_ends, connections, is_changed, is_sent, has_gap, how }
    }

    /// Whether its gap is over.
    fn is_over(&self, now: Moment) -> bool {
        self.connections == 0 && self.gap_ends <= now.ms
    }
}

/// What becomes of the users' sessions when the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtEnd {
    /// They stay open for the next run of this server.
    StayOpen,
    /// They end. A user that comes back within the gap, to any server, goes on with the session.
    End,
}

impl Tracker {
    /// A tracker without users. Of a user that comes back within `gap_ms` milliseconds the session goes on.
    /// Ended sessions wait within `ended_bytes_max` bytes.
    pub(crate) fn new(gap_ms: u64, ended_bytes_max: usize) -> Self {
        Tracker {
            gap_ms,
            ended_bytes_max,
            users: HashMap::new(),
            changed: VecDeque::new(),
            session: 0,
            gaps: BinaryHeap::new(),
            ended: VecDeque::new(),
            ended_bytes: 0,
            dropped: 0,
            has_dropped: false,
            is_closed: false,
            ends_all: false,
        }
    }

    /// Takes a session of a former run. It goes on if the user comes back within the gap.
    pub(crate) fn restore(&mut self, left: LeftOpen, now: Moment) {
        let LeftOpen { user, join_at, left_at, died } = left;
        let passed = now.unix_ms.saturating_sub(left_at);
        let gap_ends = now.ms.saturating_add(self.gap_ms.saturating_sub(passed));
        let how = if died { End::ServerDied } else { End::Left };
        let left_at = left_at.max(join_at);
        let restored = User { left_at, gap_ends, has_gap: true, how, ..User::new(0, join_at) };
        self.users.insert(Arc::clone(&user), restored);
        self.gaps.push(Reverse((gap_ends, user)));
    }

    /// A connection of `user` has begun.
    pub(crate) fn connected(&mut self, user: &str, now: Moment) {
        if self.is_closed {
            return;
        }
        // The entry of the former session is one of the new session.
        let mut has_gap = false;
        if let Some(known) = self.users.get(user).filter(|known| known.is_over(now)) {
            has_gap = known.has_gap;
            self.end(user);
        }
        let user = match self.users.get_key_value(user) {
            Some((user, known)) if known.connections == 0 => Arc::clone(user),
            Some((user, _)) => {
                let user = Arc::clone(user);
                self.users.get_mut(&user).expect("just found").connections += 1;
                self.change(&user);
                return;
            }
            None => {
                let user = Arc::<str>::from(user);
                self.session += 1;
                let new = User { has_gap, ..User::new(self.session, now.unix_ms) };
                self.users.insert(Arc::clone(&user), new);
                user
            }
        };
        let known = self.users.get_mut(&user).expect("just found or inserted");
        (known.connections, known.how) = (1, End::Left);
        self.change(&user);
    }

    /// A connection of `user` has ended.
    pub(crate) fn disconnected(&mut self, user: &str, now: Moment) {
        if self.is_closed {
            return;
        }
        let known = self.users.get_key_value(user).expect("its connection has begun");
        let user = Arc::clone(known.0);
        let known = self.users.get_mut(&user).expect("just found");
        known.connections = known.connections.checked_sub(1).expect("its connection has begun");
        if known.connections > 0 {
            self.change(&user);
            return;
        }
        // The clock may have been set back since the join.
        known.left_at = now.unix_ms.max(known.join_at);
        known.gap_ends = now.ms.saturating_add(self.gap_ms);
        if !std::mem::replace(&mut known.has_gap, true) {
            self.gaps.push(Reverse((known.gap_ends, Arc::clone(&user))));
        }
        self.change(&user);
    }

    /// All users leave: the server ends, and does not see each of them go. Nothing that happens afterwards
    /// counts.
    pub(crate) fn leave_all(&mut self, now: Moment, how: AtEnd) {
        let there = self.users.iter().filter(|(_, known)| known.connections > 0);
        let there: Vec<_> = there.map(|(user, _)| Arc::clone(user)).collect();
        for user in there {
            self.users.get_mut(&user).expect("just seen").connections = 1;
            self.disconnected(&user, now);
        }
        self.is_closed = true;
        self.ends_all = how == AtEnd::End;
    }

    /// Makes all open sessions part of the next batches, as if none had had them.
    pub(crate) fn send_all(&mut self) {
        let users: Vec<_> = self.users.keys().map(Arc::clone).collect();
        for user in &users {
            self.change(user);
            self.users.get_mut(user).expect("just seen").is_sent = false;
        }
    }

    /// Takes the sessions of a batch back that may not have been written.
    pub(crate) fn put_back(&mut self, Batch { forget_open, ended, open, .. }: Batch) {
        self.has_dropped |= forget_open;
        self.ended_bytes += ended.iter().map(cost).sum::<usize>();
        ended.into_iter().rev().for_each(|ended| self.ended.push_front(ended));
        for Open { user, is_new, .. } in open {
            let Some(known) = self.users.get_mut(&user) else { continue };
            known.is_sent &= !is_new;
            self.change(&user);
        }
    }

    /// Notes that the row of a user must be written.
    fn change(&mut self, user: &Arc<str>) {
        let known = self.users.get_mut(user).expect("a user with a session");
        if !known.is_changed {
            known.is_changed = true;
            self.changed.push_back((known.session, Arc::clone(user)));
        }
    }

    /// Ends the sessions of users whose gaps are over, and forgets what is void in the queue of changes.
    /// Looks at so many of both at most, as shards wait meanwhile. Returns whether there is more to do.
    pub(crate) fn tend(&mut self, most: usize, now: Moment) -> bool {
        if self.ends_all {
            let users: Vec<_> = self.users.keys().take(most).map(Arc::clone).collect();
            users.iter().for_each(|user| self.end(user));
            self.gaps.clear();
            self.changed.clear();
            return !self.users.is_empty();
        }
        for _ in 0..most {
            let Some(Reverse((gap_ends, _))) = self.gaps.peek() else { break };
            if *gap_ends > now.ms {
                break;
            }
            let Reverse((_, user)) = self.gaps.pop().expect("just seen");
            let known = self.users.get_mut(&user).expect("an entry is of a user");
            known.has_gap = false;
            if known.is_over(now) {
                self.end(&user);
            } else if known.connections == 0 {
                known.has_gap = true;
                self.gaps.push(Reverse((known.gap_ends, user)));
            }
        }
        for _ in 0..most.min(self.changed.len()) {
            let (session, user) = self.changed.pop_front().expect("it has so many");
            if self.users.get(&user).is_some_and(|known| known.session == session) {
                self.changed.push_back((session, user));
            }
        }
        self.gaps.peek().is_some_and(|Reverse((gap_ends, _))| *gap_ends <= now.ms)
    }

    /// Ends the session of a user. Beyond the bound of ended sessions it is dropped and counted.
    fn end(&mut self, user: &str) {
        let (user, known) = self.users.remove_entry(user).expect("it has a session");
        let User { join_at, left_at, how, .. } = known;
        let ended = Ended { user, join_at, terminate_at: left_at, how };
        if self.ended_bytes + cost(&ended) > self.ended_bytes_max {
            self.dropped += 1;
            self.has_dropped = true;
            return;
        }
        self.ended_bytes += cost(&ended);
        self.ended.push_back(ended);
    }

    /// Takes what has changed, at most `rows` rows. The caller writes all of it before it takes more.
    pub(crate) fn take(&mut self, rows: usize, now: Moment) -> Batch {
        let forget_open = std::mem::take(&mut self.has_dropped);
        if forget_open {
            self.send_all();
        }
        self.tend(rows, now);
        let ended = self.take_ended(rows);
        let mut open = Vec::new();
        // A user's new session is written after its old one.
        while self.ended.is_empty()
            && ended.len() + open.len() < rows
            && let Some((session, user)) = self.changed.pop_front()
        {
            let known = self.users.get_mut(&user).filter(|known| known.session == session);
            let Some(known) = known else { continue };
            known.is_changed = false;
            let is_new = !std::mem::replace(&mut known.is_sent, true);
            let left_at = (known.connections == 0).then_some(known.left_at);
            let (join_at, connections) = (known.join_at, known.connections);
            open.push(Open { user, join_at, left_at, connections, is_new });
        }
        Batch { forget_open, ended, open, ..Batch::default() }
    }

    /// Takes so many ended sessions at most, in the order in which they ended.
    pub(crate) fn take_ended(&mut self, most: usize) -> Vec<Ended> {
        let ended: Vec<_> = self.ended.drain(..self.ended.len().min(most)).collect();
        self.ended_bytes -= ended.iter().map(cost).sum::<usize>();
        ended
    }

    /// Users with open sessions.
    pub(crate) fn open(&self) -> usize {
        self.users.len()
    }

    /// Whether a batch had all that has changed, and no session waits for the end of the server.
    pub(crate) fn is_written(&self) -> bool {
        self.ended.is_empty()
            && self.changed.is_empty()
            && (!self.ends_all || self.users.is_empty())
    }

    /// Ended sessions that were dropped, as the database failed for too long.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ended sessions that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.ended.len()
    }

    /// Whether something waits to be written, or a gap is over that has not ended its session.
    #[cfg(test)]
    fn has_work(&self, now: Moment) -> bool {
        let has_gap = self.gaps.peek().is_some_and(|Reverse((gap_ends, _))| *gap_ends <= now.ms);
        self.has_dropped
            || has_gap
            || self.ends_all && !self.users.is_empty()
            || !self.ended.is_empty()
            || !self.changed.is_empty()
    }
}

/// Bytes that an ended session counts for.
fn cost(ended: &Ended) -> usize {
    size_of::<Ended>() + 2 * size_of::<usize>() + ended.user.len()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use fastrand::Rng;
    use murre_testing::{catch_panic, first_failure, seeds};

    use super::*;

    const GAP: u64 = 30;

    /// What happens to a user: the time, and whether a connection begins or ends.
    type History = BTreeMap<Arc<str>, Vec<(u64, bool)>>;

    /// The row of a user with one connection, or that has left.
    fn row(user: &str, join_at: u64, left_at: Option<u64>) -> Open {
        let connections = u32::from(left_at.is_none());
        Open { user: user.into(), join_at, left_at, connections, is_new: false }
    }

    /// The sessions of a user by definition, at the time `now`: those that have ended, and the open one.
    fn sessions(user: &Arc<str>, history: &[(u64, bool)], now: u64) -> (Vec<Ended>, Option<Open>) {
        let (mut ended, mut open, mut connections) = (Vec::new(), None::<Open>, 0_u32);
        let end = |Open { user, join_at, left_at, .. }, ended: &mut Vec<Ended>| {
            let terminate_at = left_at.expect("it has no connections");
            ended.push(Ended { user, join_at, terminate_at, how: End::Left });
        };
        let is_over = |open: &mut Open, at: u64| open.left_at.is_some_and(|left| at >= left + GAP);
        for &(at, begins) in history {
            connections = if begins { connections + 1 } else { connections - 1 };
            match (begins, connections) {
                (true, 1) => {
                    if let Some(over) = open.take_if(|open| is_over(open, at)) {
                        end(over, &mut ended);
                    }
                    open.get_or_insert_with(|| row(user, at, None)).left_at = None;
                }
                (false, 0) => open.as_mut().expect("it had a connection").left_at = Some(at),
                _ => {}
            }
            open.as_mut().expect("it has begun").connections = connections;
        }
        if let Some(over) = open.take_if(|open| is_over(open, now)) {
            end(over, &mut ended);
        }
        (ended, open)
    }

    /// A database, as a model: what a store has after some batches.
    #[derive(Default)]
    struct Written {
        open: BTreeMap<Arc<str>, Open>,
        ended: Vec<Ended>,
        /// The sessions that were open in a batch.
        sessions: BTreeSet<(Arc<str>, u64)>,
    }

    impl Written {
        fn write(&mut self, batch: Batch) {
            if batch.forget_open {
                self.open.clear();
            }
            for ended in batch.ended {
                self.open.remove(&ended.user);
                self.ended.push(ended);
            }
            for open in batch.open {
                // A session is new to the database once.
                assert_eq!(
                    open.is_new,
                    self.sessions.insert((Arc::clone(&open.user), open.join_at))
                );
                self.open.insert(Arc::clone(&open.user), Open { is_new: false, ..open });
            }
        }
    }

    fn at(ms: u64) -> Moment {
        Moment { unix_ms: ms, ms }
    }

    /// Users come and go on several connections, batches of any size are written: in the end the database has
    /// the sessions that follow from what happened, each once. A user has one entry in each queue at most.
    fn run(seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let (users, rows) = (rng.usize(1..6), rng.usize(1..5));
        let names: Vec<Arc<str>> = (0..users).map(|user| format!("user {user}").into()).collect();
        let (mut tracker, mut written) = (Tracker::new(GAP, 32 << 20), Written::default());
        let (mut history, mut connections) = (History::new(), vec![0; users]);
        // Each event has a time of its own: the definition above needs no order at one time.
        let mut now = 1000;
        for _ in 0..rng.usize(0..60) {
            let longest = if rng.bool() { 5 } else { 2 * GAP };
            now += rng.u64(1..longest);
            let user = rng.usize(..users);
            match rng.u8(..4) {
                0 if connections[user] > 0 => {
                    connections[user] -= 1;
                    tracker.disconnected(&names[user], at(now));
                    history.entry(Arc::clone(&names[user])).or_default().push((now, false));
                }
                1 => {
                    connections[user] += 1;
                    tracker.connected(&names[user], at(now));
                    history.entry(Arc::clone(&names[user])).or_default().push((now, true));
                }
                2 => {
                    let batch = tracker.take(rows, at(now));
                    assert!(batch.ended.len() + batch.open.len() <= rows);
                    match rng.u8(..4) {
                        0 => tracker.put_back(batch),
                        _ => written.write(batch),
                    }
                }
                _ => _ = tracker.tend(rows, at(now)),
            }
            assert!(tracker.gaps.len() <= users, "{:?}", tracker.gaps);
        }
        now += rng.u64(1..2 * GAP);
        while tracker.has_work(at(now)) {
            written.write(tracker.take(rows, at(now)));
        }
        let (mut ended, mut open) = (Vec::new(), BTreeMap::new());
        for (user, history) in &history {
            let (own_ended, own_open) = sessions(user, history, now);
            ended.extend(own_ended);
            open.extend(own_open.map(|own| (Arc::clone(user), own)));
        }
        let order = |ended: &Ended| (Arc::clone(&ended.user), ended.join_at);
        ended.sort_by_key(order);
        written.ended.sort_by_key(order);
        assert_eq!((written.ended, &written.open), (ended, &open));
        assert_eq!((tracker.open(), tracker.waiting()), (open.len(), 0));
    }

    #[test]
    fn the_database_follows_what_happened() {
        let failed = first_failure(seeds(2000), |seed| catch_panic(|| run(seed)).is_err());
        if let Some(seed) = failed {
            eprintln!("SEED={seed} repeats this:");
            run(seed);
        }
    }

    /// While the database fails, ended sessions are kept within the bound, and nothing else grows. The next
    /// batch forgets the rows of all users, and has those that are still there.
    #[test]
    fn a_database_that_fails_for_long_costs_ended_sessions() {
        let mut tracker = Tracker::new(0, 32 << 20);
        tracker.connected("there", at(1));
        let name = "x".repeat(1000);
        for number in 0..40_000 {
            let user = format!("{number}{name}");
            tracker.connected(&user, at(2));
            tracker.disconnected(&user, at(3));
            assert!(!tracker.tend(10, at(4)));
        }
        let kept = tracker.waiting();
        assert!((30_000..33_000).contains(&kept), "{kept}");
        assert_eq!((tracker.open(), tracker.dropped()), (1, 40_000 - kept as u64));
        assert!(tracker.changed.len() + tracker.gaps.len() < 20);
        let batch = tracker.take(usize::MAX, at(4));
        assert!(batch.forget_open && batch.ended.len() == kept);
        let there = Open { is_new: true, ..row("there", 1, None) };
        assert_eq!((batch.open, tracker.ended_bytes), (vec![there], 0));
        assert!(!tracker.has_work(at(4)) && !tracker.take(9, at(4)).forget_open);
    }

    /// A user that comes and goes all the time, within the gap or beyond it, costs nothing more.
    #[test]
    fn coming_and_going_costs_nothing_more() {
        for step in [1, 2 * GAP] {
            let mut tracker = Tracker::new(GAP, 32 << 20);
            for round in 0..1000 {
                tracker.connected("ann", at(round * step));
                tracker.disconnected("ann", at(round * step));
                tracker.tend(2, at(round * step));
            }
            assert!(tracker.gaps.len() <= 2 && tracker.changed.len() <= 2, "{step}");
        }
    }

    /// A user that a former run has left open goes on with the session within the gap, counted from when it
    /// was last seen; otherwise the session has ended then.
    #[test]
    fn sessions_of_a_former_run_go_on_or_end() {
        let now = Moment { unix_ms: 1000, ms: 7 };
        let left_open =
            |user: &str, left_at, died| LeftOpen { user: user.into(), join_at: 900, left_at, died };
        let mut tracker = Tracker::new(GAP, 32 << 20);
        for (user, left_at, died) in
            [("away", 976, true), ("old", 969, false), ("back", 975, true), ("long ago", 910, true)]
        {
            tracker.restore(left_open(user, left_at, died), now);
        }
        assert_eq!(tracker.open(), 4);
        tracker.connected("back", Moment { unix_ms: 1004, ms: 11 });
        let later = Moment { unix_ms: 1010, ms: 17 };
        let mut batch = tracker.take(9, later);
        batch.ended.sort_by_key(|ended| ended.terminate_at);
        let ended = |user: &str, terminate_at, how| Ended {
            user: user.into(),
            join_at: 900,
            terminate_at,
            how,
        };
        let expected = [
            ended("long ago", 910, End::ServerDied),
            ended("old", 969, End::Left),
            ended("away", 976, End::ServerDied),
        ];
        assert_eq!(batch.ended, expected);
        assert_eq!(batch.open, [Open { is_new: true, ..row("back", 900, None) }]);
        // It has been seen by this run, which sees it leave.
        tracker.disconnected("back", Moment { unix_ms: 1020, ms: 27 });
        let batch = tracker.take(9, Moment { unix_ms: 1050, ms: 57 });
        assert_eq!(batch.ended, [ended("back", 1020, End::Left)]);
    }

    /// At the end of a server all users leave, however many connections they have. Shards that have yet to
    /// end change nothing.
    #[test]
    fn all_leave_at_the_end() {
        let mut tracker = Tracker::new(GAP, 32 << 20);
        for user in ["ann", "ann", "bob"] {
            tracker.connected(user, at(5));
        }
        tracker.disconnected("bob", at(6));
        tracker.leave_all(at(8), AtEnd::StayOpen);
        tracker.disconnected("ann", at(9));
        tracker.connected("cara", at(9));
        let open = |user: &str, left_at| Open { is_new: true, ..row(user, 5, left_at) };
        assert_eq!(tracker.take(9, at(9)).open, [open("ann", Some(8)), open("bob", Some(6))]);
    }

    /// Of a server that leaves its users to others all sessions end with it, as many at a time as are wanted, also
    /// those whose gaps run.
    #[test]
    fn all_sessions_end_with_a_server_of_a_cluster() {
        let mut tracker = Tracker::new(GAP, 32 << 20);
        for user in ["ann", "ann", "bob", "cara"] {
            tracker.connected(user, at(5));
        }
        tracker.disconnected("bob", at(6));
        assert_eq!(tracker.take(9, at(7)).open.len(), 3);
        tracker.leave_all(at(8), AtEnd::End);
        assert!(tracker.tend(2, at(8)) && tracker.has_work(at(8)));
        assert!(!tracker.tend(2, at(8)));
        let mut ended = tracker.take(9, at(8)).ended;
        ended.sort_by_key(|ended| Arc::clone(&ended.user));
        let ends: Vec<_> = ended.iter().map(|ended| (&*ended.user, ended.terminate_at)).collect();
        assert_eq!(ends, [("ann", 8), ("bob", 6), ("cara", 8)]);
        assert!(!tracker.has_work(at(8)));
    }

    /// A clock of the wall that is set back makes no session end before its begin, and ends no gap.
    #[test]
    fn the_clock_of_the_wall_may_jump() {
        let mut tracker = Tracker::new(GAP, 32 << 20);
        let ann: Arc<str> = "ann".into();
        tracker.connected(&ann, Moment { unix_ms: 5000, ms: 0 });
        tracker.disconnected("ann", Moment { unix_ms: 100, ms: 1 });
        tracker.connected(&ann, Moment { unix_ms: 90_000, ms: 2 });
        tracker.disconnected("ann", Moment { unix_ms: 200, ms: 3 });
        let ended = tracker.take(9, Moment { unix_ms: 0, ms: 33 }).ended;
        let how = End::Left;
        assert_eq!(ended, [Ended { user: ann, join_at: 5000, terminate_at: 5000, how }]);
    }
}
