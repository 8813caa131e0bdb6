//! The control plane: it publishes, and an administrator ends sessions. Every question is answered.

use murre_core::ServeMail;
use murre_core::ring::sim::Peer;
use murre_router::channels::{Form, Payload};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use super::super::choices::Choices;
use super::super::client::Transport;
use super::super::setup::keeps_history;
use super::super::world::World;
use super::Operation;
use crate::hub::control::Control;
use crate::hub::orders::{Action, Order, Selection};
use crate::hub::pending::Published;
use crate::hub::{ErrorCode, HubMail};
use crate::routes::AppMail;

#[derive(Clone, Debug)]
pub(in super::super) enum ControlRequest {
    Publish {
        shard: usize,
        channel: String,
        count: u32,
        filling: usize,
    },
    Disconnect {
        client: usize,
    },
    DisconnectUser {
        user: String,
    },
    /// Describe a channel. The answer is ignored.
    Look {
        shard: usize,
    },
}

/// A question that has not been answered.
pub(in super::super) enum Question {
    Publish { shard: usize, channel: String, number: u64, answer: Receiver<Published> },
    Disconnect { shard: usize, peer: Option<Peer>, answer: Receiver<u32> },
    Look { shard: usize, answer: Receiver<Option<murre_router::channels::ChannelInfo>> },
}

impl ControlRequest {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        match choices.number(8) {
            0..5 => ControlRequest::Publish {
                shard: choices.index(4),
                channel: super::channel(choices),
                count: super::publish::count(choices),
                filling: super::publish::filling(choices),
            },
            5 => ControlRequest::Disconnect { client: super::client(choices) },
            6 => ControlRequest::DisconnectUser { user: format!("user-{}", choices.number(3)) },
            _ => ControlRequest::Look { shard: choices.index(4) },
        }
    }
}

impl Operation for ControlRequest {
    fn play(&self, world: &mut World) {
        match self {
            ControlRequest::Publish { shard, channel, count, filling } => {
                for _ in 0..*count {
                    publish(world, shard % world.nodes.len(), channel, *filling);
                }
            }
            ControlRequest::Disconnect { client } => {
                let Some(client) = &mut world.clients[*client] else { return };
                let (shard, peer) = (client.shard, client.peer);
                let of_connection = world.nodes[shard].net.stats(peer).id;
                client.may_be_disconnected = true;
                // A session that polls is on the shard that its name says.
                let named = client.name.split_once('-').filter(|_| client.polls_phoenix());
                let named =
                    named.and_then(|(shard, conn)| shard.parse().ok().zip(conn.parse().ok()));
                let (shard, conn) = match (named, of_connection) {
                    (Some((shard, conn)), _) => (shard, conn),
                    (None, Some(conn)) => (shard, conn),
                    (None, None) => return,
                };
                let peer = (!client.polls_phoenix()).then_some(peer);
                let (sender, answer) = oneshot::channel();
                let sessions = Selection::Connection(conn);
                let order = Control::Order(Order { sessions, action: END, answer: sender });
                world.ask(shard, order, Question::Disconnect { shard, peer, answer });
            }
            ControlRequest::DisconnectUser { user } => {
                for client in world.clients.iter_mut().flatten() {
                    client.may_be_disconnected = true;
                }
                for shard in 0..world.nodes.len() {
                    let (sender, answer) = oneshot::channel();
                    let sessions =
                        Selection::User { name: user.as_str().into(), except: Box::default() };
                    let order = Control::Order(Order { sessions, action: END, answer: sender });
                    world.ask(shard, order, Question::Disconnect { shard, peer: None, answer });
                }
            }
            ControlRequest::Look { shard } => look(world, shard % world.nodes.len()),
        }
    }
}

/// An administrator ends the session.
const END: Action = Action::Disconnect { code: None, reason: None };

fn publish(world: &mut World, shard: usize, channel: &str, filling: usize) {
    let number = world.model.hand_in(filling, None);
    let text = format!("\"{}\"", super::publish::payload(number, filling));
    let payload = Payload::new(Form::Json, text.into_bytes());
    let (sender, answer) = oneshot::channel();
    let control = Control::Publish { channel: channel.into(), payload, answer: sender };
    let channel = channel.to_owned();
    world.ask(shard, control, Question::Publish { shard, channel, number, answer });
}

/// Asks a shard for something, so that it has something to do.
pub(in super::super) fn look(world: &mut World, shard: usize) {
    let (sender, answer) = oneshot::channel();
    let control = Control::Channel { name: "hd:1".into(), answer: sender };
    world.ask(shard, control, Question::Look { shard, answer });
}

impl World {
    fn ask(&mut self, shard: usize, control: Control, question: Question) {
        self.post(shard, ServeMail::App(AppMail::Hub(HubMail::Control(control))));
        self.questions.push(question);
    }

    /// Takes the answers that are here.
    pub(in super::super) fn hear_answers(&mut self) {
        let questions = std::mem::take(&mut self.questions);
        self.questions = questions
            .into_iter()
            .filter_map(|mut question| {
                let waits = self.hear_answer(&mut question);
                waits.then_some(question)
            })
            .collect();
    }

    /// Whether there is no answer yet.
    fn hear_answer(&mut self, question: &mut Question) -> bool {
        let (shard, lost) = match question {
            Question::Publish { shard, channel, number, answer } => match answer.try_recv() {
                Ok(outcome) => {
                    let taken = self.model.is_taken(*number);
                    match outcome {
                        Err(code) => {
                            assert_eq!(code, ErrorCode::Overloaded, "{channel}");
                            assert!(!taken, "{number} is refused and taken");
                        }
                        Ok(position) => {
                            let index = self.model.index(channel, *number);
                            assert!(position.is_some() || !keeps_history(channel), "{channel}");
                            if let Some(position) = position {
                                self.model.learn(channel, position, index);
                            }
                        }
                    }
                    return false;
                }
                Err(error) => (*shard, error),
            },
            Question::Disconnect { shard, peer, answer } => match answer.try_recv() {
                Ok(ended) => {
                    let of = |client: &&mut super::super::client::Client| {
                        client.shard == *shard && Some(client.peer) == *peer
                    };
                    if let Some(client) = self.clients.iter_mut().flatten().find(of) {
                        // The next poll of a connection is another session.
                        client.must_be_disconnected |=
                            ended > 0 && client.transport != Transport::Poll;
                    }
                    return false;
                }
                Err(error) => (*shard, error),
            },
            Question::Look { shard, answer } => match answer.try_recv() {
                Ok(_) => return false,
                Err(error) => (*shard, error),
            },
        };
        if lost == TryRecvError::Closed {
            assert!(self.is_cut_off(shard), "a question was dropped and not answered");
            return false;
        }
        true
    }
}
