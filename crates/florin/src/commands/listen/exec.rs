//! A command for each transaction.

use std::process::Stdio;
use std::time::Duration;

use florin_client::listener::Delivery;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Stop;
use super::line::json_of;

/// How long a command may go on after it was asked to stop.
const FINISH: Duration = Duration::from_secs(10);

/// What to run.
pub struct Exec {
    command: String,
}

impl Exec {
    /// By a shell.
    pub fn new(command: &str) -> Exec {
        Exec { command: command.into() }
    }

    /// Runs the command: an error is why it did not succeed. `None`: it was stopped, and the command did not succeed
    /// soon enough.
    pub async fn run(&self, delivery: &Delivery, stop: &mut Stop) -> Option<Result<(), String>> {
        let running = self.run_once(delivery);
        tokio::pin!(running);
        let done = tokio::select! {
            done = &mut running => return Some(done),
            () = stop.wait() => tokio::time::timeout(FINISH, running).await,
        };
        // Done is done: the caller stores it, and stops at the next transaction.
        match done {
            Ok(Ok(())) => Some(Ok(())),
            _ => None,
        }
    }

    async fn run_once(&self, delivery: &Delivery) -> Result<(), String> {
        let (order, key) = (&delivery.order, delivery.key());
        let mut child = Command::new("sh")
            .args(["-c", &self.command])
            .env("FLORIN_NETWORK_ID", order.network_id.to_string())
            .env("FLORIN_ACTOR", order.actor.to_string())
            .env("FLORIN_SEQNUM", order.seqnum.to_string())
            .env("FLORIN_TRANSACTION_TYPE", order.transaction_type.to_string())
            .env("FLORIN_ORDER_ID", hex::encode(order.id))
            .env("FLORIN_IDEMPOTENCY_KEY", key.to_string())
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot run sh: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read is none of our business.
            let _ = stdin.write_all(format!("{}\n", json_of(delivery)).as_bytes()).await;
        }
        match child.wait().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the command ended with {status}")),
            Err(e) => Err(format!("the command can't be waited for: {e}")),
        }
    }
}
