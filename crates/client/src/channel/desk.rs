//! The thread that owns the state, and its journal.

use std::time::{Duration, Instant};

use florin_core::channel::hub::{self, Effect, Effects, Hub, Input};
use florin_core::channel::manager::{self, Incoming, Manager, Now, Signer};
use florin_core::{Code, Error, Result, wire};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::debug;

use super::shell::Shell;
use super::store::{GROUP_MAX, Store};

/// Without a word of the log for as long nothing is said to or heard of other sides: whether a lock can still be redeemed is log time's
/// to say.
const LOG_SILENCE_MAX: Duration = Duration::from_secs(120);

/// Looks something up.
pub type Read = Box<dyn FnOnce(&Hub, &Manager, Now) + Send>;
type Answering = oneshot::Sender<Result<hub::Reply>>;

/// What the thread is told.
pub enum Command {
    Ask(Box<Input>, Answering),
    /// From the background: nobody waits for an answer. The permit is given back when it is done.
    Tell(Box<Input>, Option<OwnedSemaphorePermit>),
    Read(Read),
    /// Log time as an authority has said it.
    Time(u64),
}

/// Answers to those who have asked, and what else follows.
#[derive(Default)]
struct Said {
    answers: Vec<(Answering, Result<hub::Reply>)>,
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
}

/// The thread's own.
pub struct Desk {
    pub hub: Hub,
    pub manager: Manager,
    pub store: Store,
    pub signer: Arc<dyn Signer + Send + Sync>,
    pub shell: Shell,
    /// The newest log time.
    pub log_ms: u64,
    /// When it was heard.
    pub heard: Option<Instant>,
    pub began: Instant,
}

impl Desk {
    pub fn run(mut self, mut from: mpsc::UnboundedReceiver<Command>) -> Result<()> {
        let due = self.hub.resume(self.now(), &mut self.manager, &*self.signer);
        self.store.append(&[due.group])?;
        self.shell.carry_out(&self.manager, due.effects);
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
        self.store.append(&turn.groups)?;
        if self.store.is_long() {
            self.store.rewrite(&self.hub.snapshot(&self.manager))?;
        }
        for said in turn.said {
            // Whoever has asked may be gone.
            said.answers.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
            self.shell.carry_out(&self.manager, said.effects);
            if let Some(look) = said.look {
                look(&self.hub, &self.manager, self.now());
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command, turn: &mut Turn) {
        match command {
            Command::Time(time) => {
                self.log_ms = self.log_ms.max(time);
                self.heard = Some(Instant::now());
            }
            // It sees what is asked before, none of which may be lost again; so it waits for the sync of all.
            Command::Read(look) => turn.said.push(Said { look: Some(look), ..Said::default() }),
            Command::Ask(input, reply) => {
                let (answer, effects) = self.handle(*input, turn);
                turn.said.push(Said { answers: vec![(reply, answer)], effects, ..Said::default() });
            }
            Command::Tell(input, in_hand) => {
                let (answer, effects) = self.handle(*input, turn);
                if let Err(e) = answer {
                    debug!("{e}");
                }
                turn.said.push(Said { effects, _in_hand: in_hand, ..Said::default() });
            }
        }
    }

    /// Handles the vouchers that came in one after the other.
    fn add(&mut self, turn: &mut Turn) {
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
        let answers = replies.into_iter().zip(answers).collect();
        turn.said.push(Said { answers, effects, ..Said::default() });
    }

    /// Log time as last heard: between two answers it stands still, so it is never ahead.
    fn now(&self) -> Now {
        Now { log_ms: self.log_ms, clock_ms: self.began.elapsed().as_millis() as u64 }
    }

    fn handle(&mut self, input: Input, turn: &mut Turn) -> (Result<hub::Reply>, Vec<Effect>) {
        if let Err(e) = self.check_log(&input) {
            return (Err(e), Vec::new());
        }
        match self.hub.handle(self.now(), input, &mut self.manager, &*self.signer) {
            Ok(Effects { group, reply, effects }) => {
                turn.groups.push(group);
                let answer = match reply {
                    hub::Reply::Failed(e) => Err(e),
                    reply => Ok(reply),
                };
                (answer, effects)
            }
            Err(e) => (Err(e), Vec::new()),
        }
    }

    /// Payments need log time that is not long ago.
    fn check_log(&self, input: &Input) -> Result<()> {
        let silent = self.heard.is_none_or(|heard| heard.elapsed() > LOG_SILENCE_MAX);
        match input {
            Input::Channel(_) | Input::Disconnected(_) => {
                if silent {
                    // They connect again, and say again what they wait for, when the log is there.
                    self.shell.links.close_all();
                }
                Ok(())
            }
            _ if silent => Err(Error::new(Code::HubOffline, "the log does not answer, so its time is not known")),
            _ => Ok(()),
        }
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
