//! The thread that owns the state, and its journal.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use florin_core::channel::hub::{self, Hub, Input};
use florin_core::channel::manager::{self, Incoming, Manager, Now};
use florin_core::channel::virtuals::{self, VirtualSigner, Virtuals};
use florin_core::wire::{self, SignedPermit, virtual_peer};
use florin_core::{Code, Error, Result};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::debug;

use super::shell::{Effect, Shell};
use super::store::{GROUP_MAX, Store};

/// Without a word of the log for as long nothing is said to or heard of other sides: whether a lock can still be redeemed is log time's
/// to say.
const LOG_SILENCE_MAX: Duration = Duration::from_secs(120);

/// All that decides, over one journal.
pub struct Machines {
    /// Payments over hubs.
    pub hub: Hub,
    /// Virtual channels.
    pub virtuals: Virtuals,
    /// The channels themselves.
    pub manager: Manager,
}

/// Looks something up.
pub type Read = Box<dyn FnOnce(&Machines, Now) + Send>;
type Answering = oneshot::Sender<Result<hub::Reply>>;
type Confirming = oneshot::Sender<Result<virtuals::Reply>>;

/// What the thread is told.
pub enum Command {
    Ask(Box<Input>, Answering),
    /// From the background: nobody waits for an answer. The permit is given back when it is done.
    Tell(Box<Input>, Option<OwnedSemaphorePermit>),
    /// For virtual channels.
    Virtual(Box<virtuals::Input>, Option<Confirming>, Option<OwnedSemaphorePermit>),
    Read(Read),
    /// Log time as an authority has said it.
    Time(u64),
}

/// To whoever has asked, who may be gone.
enum Answer {
    Hub(Answering, Result<hub::Reply>),
    Virtual(Confirming, Result<virtuals::Reply>),
}

impl Answer {
    fn give(self) {
        match self {
            Answer::Hub(reply, answer) => drop(reply.send(answer)),
            Answer::Virtual(reply, answer) => drop(reply.send(answer)),
        }
    }
}

/// Answers to those who have asked, and what else follows.
#[derive(Default)]
struct Said {
    answers: Vec<Answer>,
    effects: Vec<Effect>,
    look: Option<Read>,
    /// Held until all is durable.
    _in_hand: Option<OwnedSemaphorePermit>,
}

/// What a group of commands has come to.
#[derive(Default)]
struct Turn {
    groups: Vec<wire::HubGroup>,
    said: Vec<Said>,
    /// Vouchers that came in one after the other.
    adds: Vec<(Incoming, Answering)>,
    /// Payments over virtual channels, as well.
    payments: Vec<(SignedPermit, Confirming)>,
    /// The manager has learned something that virtual channels may depend on.
    news: bool,
}

/// The thread's own.
pub struct Desk {
    pub machines: Machines,
    pub store: Store,
    pub signer: Arc<dyn VirtualSigner + Send + Sync>,
    pub shell: Shell,
    /// The newest log time.
    pub log_ms: u64,
    /// When it was heard.
    pub heard: Option<Instant>,
    pub began: Instant,
    /// The own clock.
    pub clock: Box<dyn Fn() -> Instant + Send>,
}

impl Desk {
    pub fn run(mut self, mut from: mpsc::UnboundedReceiver<Command>) -> Result<()> {
        let now = self.now();
        let Machines { hub, virtuals, manager } = &mut self.machines;
        let of_hub = hub.resume(now, manager, &*self.signer);
        let of_virtuals = virtuals.resume(now, manager, &*self.signer);
        self.store.append(&[of_hub.group, of_virtuals.group])?;
        let of_virtuals = of_virtuals.effects.into_iter().filter_map(Effect::of_virtuals);
        let effects = of_hub.effects.into_iter().map(Effect::from).chain(of_virtuals);
        self.shell.carry_out(&self.machines.manager, effects.collect());
        let mut group = Vec::new();
        while let Some(first) = from.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_MAX
                && let Ok(next) = from.try_recv()
            {
                group.push(next);
            }
            self.group(&mut group)?;
        }
        Ok(())
    }

    /// Handles what was asked meanwhile: nothing is said of any before the groups of all are durable.
    fn group(&mut self, commands: &mut Vec<Command>) -> Result<()> {
        let mut turn = Turn::default();
        for command in commands.drain(..) {
            // Signatures of vouchers that came in together are verified together.
            let command = match command {
                Command::Virtual(input, Some(reply), None) => match payment(*input) {
                    Ok(payment) => {
                        turn.payments.push((payment, reply));
                        continue;
                    }
                    Err(input) => Command::Virtual(input, Some(reply), None),
                },
                Command::Ask(input, reply) => match voucher(*input) {
                    Ok(incoming) => {
                        turn.adds.push((incoming, reply));
                        continue;
                    }
                    Err(input) => Command::Ask(input, reply),
                },
                other => other,
            };
            self.add(&mut turn);
            self.command(command, &mut turn);
        }
        self.add(&mut turn);
        if turn.news {
            let (_, effects) = self.handle_virtual(virtuals::Input::Look, &mut turn);
            turn.said.push(Said { effects, ..Said::default() });
        }
        self.store.append(&turn.groups)?;
        if self.store.is_long() {
            let mut anew = self.machines.hub.snapshot(&self.machines.manager);
            anew.entries.push(self.machines.virtuals.snapshot());
            self.store.rewrite(&anew)?;
        }
        for said in turn.said {
            said.answers.into_iter().for_each(Answer::give);
            self.shell.carry_out(&self.machines.manager, said.effects);
            if let Some(look) = said.look {
                look(&self.machines, self.now());
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command, turn: &mut Turn) {
        match command {
            Command::Time(time) => {
                self.log_ms = self.log_ms.max(time);
                self.heard = Some((self.clock)());
            }
            // It sees what is asked before, none of which may be lost again; so it waits for the sync of all.
            Command::Read(look) => turn.said.push(Said { look: Some(look), ..Said::default() }),
            Command::Ask(input, reply) => {
                let (answer, effects) = self.handle(*input, turn);
                turn.said.push(Said { answers: vec![Answer::Hub(reply, answer)], effects, ..Said::default() });
            }
            Command::Tell(input, in_hand) => {
                let (answer, effects) = self.handle(*input, turn);
                if let Err(e) = answer {
                    debug!("{e}");
                }
                turn.said.push(Said { effects, _in_hand: in_hand, ..Said::default() });
            }
            Command::Virtual(input, reply, in_hand) => {
                let (answer, effects) = self.handle_virtual(*input, turn);
                let answers = match (reply, answer) {
                    (Some(reply), answer) => vec![Answer::Virtual(reply, answer)],
                    (None, Err(e)) => {
                        debug!("{e}");
                        Vec::new()
                    }
                    (None, Ok(_)) => Vec::new(),
                };
                turn.said.push(Said { answers, effects, _in_hand: in_hand, ..Said::default() });
            }
        }
    }

    /// Handles the vouchers and payments that came in one after the other.
    fn add(&mut self, turn: &mut Turn) {
        self.add_payments(turn);
        if turn.adds.is_empty() {
            return;
        }
        let (incoming, replies): (Vec<_>, Vec<_>) = std::mem::take(&mut turn.adds).into_iter().unzip();
        let many = Input::Channel(Box::new(manager::Input::VoucherAddMany(incoming)));
        let (answer, effects) = self.handle(many, turn);
        let added = |one| hub::Reply::Channel(manager::Reply::Added(one));
        let answers: Vec<Result<hub::Reply>> = match answer {
            Ok(hub::Reply::Channel(manager::Reply::AddedMany(all))) => {
                all.into_iter().map(|one| one.map(added)).collect()
            }
            Ok(_) => Vec::new(),
            Err(e) => replies.iter().map(|_| Err(e.clone())).collect(),
        };
        let answers = replies.into_iter().zip(answers).map(|(reply, answer)| Answer::Hub(reply, answer)).collect();
        turn.said.push(Said { answers, effects, ..Said::default() });
    }

    fn add_payments(&mut self, turn: &mut Turn) {
        if turn.payments.is_empty() {
            return;
        }
        let (payments, replies): (Vec<_>, Vec<_>) = std::mem::take(&mut turn.payments).into_iter().unzip();
        let (answer, effects) = self.handle_virtual(virtuals::Input::Payments(payments), turn);
        let answers: Vec<Result<virtuals::Reply>> = match answer {
            Ok(virtuals::Reply::Received(all)) => {
                all.into_iter().map(|one| one.map(|more| virtuals::Reply::Received(vec![Ok(more)]))).collect()
            }
            Ok(_) => Vec::new(),
            Err(e) => replies.iter().map(|_| Err(e.clone())).collect(),
        };
        let answers = replies.into_iter().zip(answers).map(|(reply, answer)| Answer::Virtual(reply, answer)).collect();
        turn.said.push(Said { answers, effects, ..Said::default() });
    }

    /// Log time as last heard: between two answers it stands still, so it is never ahead.
    fn now(&self) -> Now {
        Now { log_ms: self.log_ms, clock_ms: (self.clock)().saturating_duration_since(self.began).as_millis() as u64 }
    }

    fn handle(&mut self, input: Input, turn: &mut Turn) -> (Result<hub::Reply>, Vec<Effect>) {
        let needs_log = !matches!(input, Input::Channel(_) | Input::Disconnected(_));
        if let Err(e) = self.check_log(needs_log) {
            return (Err(e), Vec::new());
        }
        use manager::Input as Of;
        let both = match &input {
            Input::Connected(end, connection) => Some(virtuals::Input::Connected(*end, *connection)),
            Input::Disconnected(end) => Some(virtuals::Input::Disconnected(*end)),
            Input::Channel(input) => {
                turn.news |= matches!(**input, Of::Seen { .. } | Of::Outcome { .. } | Of::Settle(_) | Of::Tick);
                None
            }
            _ => None,
        };
        let now = self.now();
        let Machines { hub, manager, .. } = &mut self.machines;
        let (answer, mut effects) = match hub.handle(now, input, manager, &*self.signer) {
            Ok(hub::Effects { group, reply, effects }) => {
                turn.groups.push(group);
                let answer = match reply {
                    hub::Reply::Failed(e) => Err(e),
                    reply => Ok(reply),
                };
                (answer, effects.into_iter().map(Effect::from).collect())
            }
            Err(e) => (Err(e), Vec::new()),
        };
        if let Some(input) = both.filter(|_| answer.is_ok()) {
            let (told, more) = self.handle_virtual(input, turn);
            effects.extend(more);
            return (told.and(answer), effects);
        }
        (answer, effects)
    }

    fn handle_virtual(&mut self, input: virtuals::Input, turn: &mut Turn) -> (Result<virtuals::Reply>, Vec<Effect>) {
        use virtuals::Input as Of;
        // Whoever pays loses nothing by it if the time is over.
        let needs_log = !matches!(input, Of::Look | Of::Disconnected(_) | Of::Pay { .. } | Of::Close(_));
        if let Err(e) = self.check_log(needs_log) {
            return (Err(e), Vec::new());
        }
        let now = self.now();
        let Machines { virtuals, manager, .. } = &mut self.machines;
        match virtuals.handle(now, input, manager, &*self.signer) {
            Ok(virtuals::Effects { group, reply, effects }) => {
                turn.groups.push(group);
                let answer = match reply {
                    virtuals::Reply::Failed(e) => Err(e),
                    reply => Ok(reply),
                };
                (answer, effects.into_iter().filter_map(Effect::of_virtuals).collect())
            }
            Err(e) => (Err(e), Vec::new()),
        }
    }

    /// What is said to or heard of other sides needs log time that is not long ago.
    fn check_log(&self, needs_log: bool) -> Result<()> {
        let since = |heard| (self.clock)().saturating_duration_since(heard);
        let silent = self.heard.is_none_or(|heard| since(heard) > LOG_SILENCE_MAX);
        if silent && needs_log {
            return Err(Error::new(Code::HubOffline, "the log does not answer, so its time is not known"));
        }
        if silent {
            // They connect again, and say again what they wait for, when the log is there.
            self.shell.links.close_all();
        }
        Ok(())
    }
}

/// The payment over a virtual channel that an input is, or else the input.
fn payment(input: virtuals::Input) -> std::result::Result<SignedPermit, Box<virtuals::Input>> {
    match input {
        virtuals::Input::Peer(wire::VirtualPeer { kind: Some(virtual_peer::Kind::Paid(payment)), .. }) => Ok(payment),
        other => Err(Box::new(other)),
    }
}

/// The voucher that an input adds, or else the input.
fn voucher(input: Input) -> std::result::Result<Incoming, Box<Input>> {
    match input {
        Input::Channel(one) => match *one {
            manager::Input::VoucherAdd(incoming) => Ok(incoming),
            other => Err(Box::new(Input::Channel(Box::new(other)))),
        },
        other => Err(Box::new(other)),
    }
}
