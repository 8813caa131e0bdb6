//! Requests on the shard of the requester.

use super::entries::Key;
use super::event::{RequestError, ServiceEvent};
use super::parking::{park, unpark};
use super::records::{ByteLen, Ready, Waiting};
use super::shard::Services;

impl<P: ByteLen> Services<P> {
    /// Stores the outcome of a request, unless it has one or its requester has left.
    pub(super) fn answered(&mut self, key: Key, answer: Result<P, RequestError>) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        if waiting.answer.is_none() {
            waiting.answer = Some(answer);
            self.ready.push_back(Ready::Answer(key));
        }
    }

    pub(super) fn outcome_event(&mut self, key: Key) -> ServiceEvent<P> {
        let Waiting { member, ticket, service, answer, .. } = self.end_waiting(key);
        match answer.expect("only what is answered is ready") {
            Ok(payload) => ServiceEvent::Response { member, ticket, service, payload },
            Err(error) => ServiceEvent::Failed { member, ticket, service, error },
        }
    }

    /// Parks an outcome until the connection of its member takes more. A response beyond the bounds fails.
    pub(super) fn park_answer(&mut self, key: Key) {
        let waiting = self.waiting.get_mut(key).expect("it is ready");
        let bytes = match &waiting.answer {
            _ if waiting.parked.is_some() => return,
            Some(Ok(payload)) => payload.byte_len(),
            _ => 0,
        };
        let has = self.members.get_mut(&waiting.member).expect("it has this");
        match park(has, &mut self.parked_bytes, bytes, &self.limits) {
            true => waiting.parked = Some(bytes),
            false => {
                waiting.answer = Some(Err(RequestError::Overloaded));
                waiting.parked = Some(0);
            }
        }
    }

    pub(super) fn end_waiting(&mut self, key: Key) -> Waiting<P> {
        let member = self.waiting.get(key).expect("it waits").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let waiting = self.waiting.remove(&mut has.waiting, key);
        unpark(has, &mut self.parked_bytes, waiting.parked);
        self.waiting_deadlines.trim(&self.waiting);
        self.forget_if_empty(member);
        waiting
    }
}
