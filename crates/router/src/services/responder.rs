//! Requests on the shard of the responder.

use std::sync::Arc;

use super::directory::Readiness;
use super::entries::Key;
use super::event::{RequestError, ServiceEvent};
use super::message::{Request, ServiceMessage};
use super::parking::{park, unpark};
use super::records::{ByteLen, MemberEntries, Offer, Ready, Serving};
use super::request_id::RequestId;
use super::shard::Services;
use crate::names::Member;

/// A responder that was congested gets new requests once it has no more than this many unseen ones.
const UNSEEN_FEW: u32 = 4;

impl<P: ByteLen> Services<P> {
    /// Assigns a request to the member with this offer. If the offer has ended or the member is full, the
    /// request goes back to the owner.
    pub(super) fn assign(&mut self, key: Key, request: Request<P>) {
        let Some(offer) = self.offers.get_mut(key) else { return self.send_request(request) };
        let member = offer.member;
        let has = self.members.get_mut(&member).expect("it has this offer");
        if has.serving.len() >= self.limits.serving_max {
            has.readiness = Readiness::Full;
            self.update_offers(member);
            return self.send_request(request);
        }
        has.unseen += 1;
        let is_congested = has.congested;
        let Request { requester, service, deadline_ms, payload } = request;
        let (payload, parked) = (Some(payload), None);
        let serving = Serving { member, requester, service, deadline_ms, payload, parked };
        let serving = self.serving.insert(&mut has.serving, serving);
        self.serving_deadlines.push(deadline_ms, serving);
        match is_congested {
            true => self.park_request(serving),
            false => self.ready.push_back(Ready::Request(serving)),
        }
    }

    pub(super) fn request_event(&mut self, key: Key) -> ServiceEvent<P> {
        let serving = self.serving.get_mut(key).expect("it is ready");
        let payload = serving.payload.take().expect("it is ready once");
        let (member, service) = (serving.member, Arc::clone(&serving.service));
        let has = self.members.get_mut(&member).expect("it has this");
        has.unseen -= 1;
        unpark(has, &mut self.parked_bytes, serving.parked.take());
        self.update_readiness(member);
        self.deliver_own_messages();
        ServiceEvent::Request { member, request: RequestId(key), service, payload }
    }

    /// Sends a request back to the owner, because its member's connection is congested. A request that was
    /// parked before stays parked.
    pub(super) fn send_back(&mut self, key: Key) {
        if self.serving.get(key).expect("it is ready").parked.is_none() {
            let Serving { requester, service, deadline_ms, payload, .. } = self.end_serving(key);
            let payload = payload.expect("it is ready");
            self.send_request(Request { requester, service, deadline_ms, payload });
        }
    }

    /// Parks a request until the connection of its member takes more. A request beyond the bounds fails.
    pub(super) fn park_request(&mut self, key: Key) {
        let serving = self.serving.get_mut(key).expect("it was put there");
        let bytes = serving.payload.as_ref().map_or(0, P::byte_len);
        let has = self.members.get_mut(&serving.member).expect("it has this");
        if park(has, &mut self.parked_bytes, bytes, &self.limits) {
            serving.parked = Some(bytes);
            return;
        }
        let Serving { requester, .. } = self.end_serving(key);
        self.tell(requester, Err(RequestError::Overloaded));
    }

    pub(super) fn end_serving(&mut self, key: Key) -> Serving<P> {
        let member = self.serving.get(key).expect("it is served").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let serving = self.serving.remove(&mut has.serving, key);
        unpark(has, &mut self.parked_bytes, serving.parked);
        has.unseen -= u32::from(serving.payload.is_some());
        self.serving_deadlines.trim(&self.serving);
        self.update_readiness(member);
        self.forget_if_empty(member);
        serving
    }

    /// Updates the readiness of a member: it gets requests again once it has half of its bound, and after
    /// congestion once it has seen most of the parked ones.
    pub(super) fn update_readiness(&mut self, member: Member) {
        let Some(has) = self.members.get_mut(&member) else { return };
        let is_full = match has.readiness {
            Readiness::Full => has.serving.len() > self.limits.serving_max / 2,
            _ => false,
        };
        let is_congested = match has.readiness {
            Readiness::Active => has.congested,
            _ => has.congested || has.unseen > UNSEEN_FEW,
        };
        has.readiness = match (is_full, is_congested) {
            (true, _) => Readiness::Full,
            (_, true) => Readiness::Congested,
            _ => Readiness::Active,
        };
        self.update_offers(member);
    }

    /// Reports the readiness of the member's offers to their owners, where it has changed.
    pub(super) fn update_offers(&mut self, member: Member) {
        let MemberEntries { offers, readiness, .. } = self.entries_of(member);
        let mut changed = Vec::new();
        self.offers.for_each(offers, |key, offer| {
            if std::mem::replace(&mut offer.readiness, readiness) != readiness {
                changed.push((key.index, Arc::clone(&offer.service)));
            }
        });
        for (offer, service) in changed {
            self.send(self.owner(&service), ServiceMessage::Ready { offer, readiness });
        }
    }

    pub(super) fn end_offer(&mut self, key: Key) {
        let member = self.offers.get(key).expect("it is offered").member;
        let has = self.members.get_mut(&member).expect("it has this");
        let Offer { service, .. } = self.offers.remove(&mut has.offers, key);
        self.forget_if_empty(member);
        self.send(self.owner(&service), ServiceMessage::Unserve { offer: key.index });
    }

    /// The member's offer of `service`. Searches all its offers, which are few.
    pub(super) fn offer_of(&self, member: Member, service: &str) -> Option<Key> {
        let mut offers = self.offers.of(self.entries_of(member).offers);
        offers.find(|(_, offer)| &*offer.service == service).map(|(key, _)| key)
    }
}
