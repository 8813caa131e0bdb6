//! Requests on the shard that owns the service, and those that come from other nodes and go there.

use std::sync::Arc;

use super::backplane::RemoteRequest;
use super::directory::Address;
use super::entries::Key;
use super::event::RequestError;
use super::message::{Request, Requester, ServiceMessage};
use super::records::ByteLen;
use super::shard::Services;
use crate::channels::Interest;
use crate::names::Shard;

impl<P: ByteLen> Services<P> {
    /// Takes a request of another node for a service that this shard owns. The backplane gets its outcome.
    pub fn requested(
        &mut self,
        request: RemoteRequest,
        service: Arc<str>,
        payload: P,
        deadline_ms: u64,
    ) {
        let requester = Requester::Node(request);
        self.choose(Request { requester, service, deadline_ms, payload });
        self.deliver_own_messages();
    }

    /// Takes the outcome of a request of this shard's member that another node was given. One that comes
    /// too late has no effect.
    pub fn outcome(&mut self, waiting: Key, answer: Result<P, RequestError>) {
        self.answered(waiting, answer);
    }

    /// As the owner: gives a request to the offer whose turn it is, or to another node, or fails it.
    pub(super) fn choose(&mut self, request: Request<P>) {
        let mut chosen = match self.directory.next(&request.service) {
            Ok((Address { shard, .. }, _)) if self.is_behind(shard) => {
                Err(RequestError::Overloaded)
            }
            chosen => chosen,
        };
        if !matches!(chosen, Ok((_, true)))
            && let (Requester::Here { .. }, Some(backplane)) =
                (request.requester, &mut self.backplane)
        {
            if backplane.request(&request) {
                return;
            }
            // Another node may offer the service.
            chosen = chosen.map_err(|_| RequestError::Overloaded);
        }
        match chosen {
            Ok((Address { shard, offer }, _)) => {
                self.send(shard, ServiceMessage::Assign { offer, request });
            }
            Err(why) => self.tell(request.requester, Err(why)),
        }
    }

    /// Tells a requester the outcome of its request.
    pub(super) fn tell(&mut self, requester: Requester, answer: Result<P, RequestError>) {
        match (requester, &mut self.backplane) {
            (Requester::Here { shard, waiting }, _) => {
                self.send(shard, ServiceMessage::Outcome { waiting, answer });
            }
            (Requester::Node(request), Some(backplane)) => backplane.answer(request, answer),
            (Requester::Node(_), None) => unreachable!("a backplane has passed it on"),
        }
    }

    /// Adds an offer of a shard.
    pub(super) fn add_offer(&mut self, shard: Shard, offer: Key, service: Arc<str>) {
        let is_first = self.directory.add(shard, offer, Arc::clone(&service));
        if let Some(backplane) = self.backplane.as_mut().filter(|_| is_first) {
            backplane.interest(&service, Interest::First);
        }
    }

    /// Removes an offer of a shard.
    pub(super) fn remove_offer(&mut self, shard: Shard, offer: u32) {
        let last = self.directory.remove(shard, offer);
        if let (Some(service), Some(backplane)) = (last, &mut self.backplane) {
            backplane.interest(&service, Interest::Last);
        }
    }
}
