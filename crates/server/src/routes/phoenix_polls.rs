//! The polls of Phoenix clients in a turn of a shard. First their requests are passed on to the shards of
//! their sessions, and the messages of POSTs are handled; after the work of the hub the answers follow.

use std::time::{Duration, Instant};

use murre_codec::http::Request;
use murre_core::{Answer, ConnId, Outbox, ServeMail};

use super::app::App;
use super::mail::AppMail;
use super::paths::Session;
use crate::transports::Wires;
use crate::transports::phoenix::long_poll;

/// The pause before mail is posted again to a shard whose mailbox was full.
const RETRY_MAIL: Duration = Duration::from_millis(1);

impl App {
    /// Answers a request of a client that polls, now or later.
    pub(super) fn phoenix_poll(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Answer<Session> {
        let user = self.user(conn, request);
        let App { hub, transports, paths, .. } = self;
        if !paths.origins.allow(request) {
            out.warn_of_origin(conn, request);
        }
        let wires = &mut Wires { out, transports };
        let answer = long_poll::request(conn, request, user, &paths.origins, hub, wires);
        answer.map_or(Answer::Later(Session::PhoenixPoll), Answer::Now)
    }

    /// Passes requests on, and handles the messages that clients have sent to sessions of this shard.
    pub(super) fn handle_posts(&mut self, out: &mut Outbox) {
        self.exchange_polls(out);
        while let Some(conn) = self.transports.phoenix.polls.take_resumed() {
            self.handle_post(conn, out);
        }
    }

    fn handle_post(&mut self, conn: ConnId, out: &mut Outbox) {
        while !self.phoenix.is_paused(conn)
            && let Some((session, kind, bytes)) = self.transports.phoenix.polls.take_message(conn)
        {
            let App { hub, transports, phoenix, .. } = self;
            phoenix.message(session, kind, &bytes, hub, &mut Wires { out, transports });
            self.follow_up(out);
        }
    }

    /// Answers the requests for which there is an answer by now.
    pub(super) fn answer_polls(&mut self, out: &mut Outbox) {
        self.transports.phoenix.polls.turn(out.now(), out.is_draining());
        while let Some(conn) = self.transports.phoenix.polls.take_taken() {
            self.hub.drained(conn);
            self.handle_post(conn, out);
        }
        self.follow_up(out);
        self.transports.phoenix.pass_answers();
        self.exchange_polls(out);
    }

    /// Posts mail to other shards, and handles the mail for this one. Mail for a shard stays in order.
    fn exchange_polls(&mut self, out: &mut Outbox) {
        self.retry_polls_at = None;
        let mut full = Vec::new();
        for _ in 0..self.transports.phoenix.requests.mails() {
            let Some((to, mail)) = self.transports.phoenix.requests.take_mail() else { break };
            if to == self.transports.phoenix.requests.shard() {
                self.transports.poll_mail(mail, out);
                continue;
            }
            let mail = match self.boxes.get(usize::from(to)).filter(|_| !full.contains(&to)) {
                Some(mailbox) => match mailbox.post(ServeMail::App(AppMail::PhoenixPoll(mail))) {
                    Err(ServeMail::App(AppMail::PhoenixPoll(mail))) => mail,
                    _ => continue,
                },
                // Not all shards have started, or earlier mail waits.
                None => mail,
            };
            full.push(to);
            self.transports.phoenix.requests.put_back(to, mail);
            self.retry_polls_at = out.now().checked_add(RETRY_MAIL);
        }
    }

    /// The latest time of the next turn because of polls.
    pub(super) fn wake_for_polls(&self) -> Option<Instant> {
        let phoenix = &self.transports.phoenix;
        let began = self.hub.config().began;
        let has_mail = phoenix.requests.mails() > 0;
        let retry = has_mail.then(|| self.retry_polls_at.unwrap_or(began));
        phoenix.polls.wake_at(began).into_iter().chain(retry).min()
    }
}
