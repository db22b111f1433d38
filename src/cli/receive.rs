//! `outhaul receive`: a remote-write receiver that prints what it gets.

use std::net::SocketAddr;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::signals::StopSignals;
use super::{Exit, block_on, complain, say};
use crate::receive::{self, Line};

/// Requests taken and not yet printed; more wait at the sender, which keeps them.
const REQUESTS_WAITING_MAX: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where to listen; any path is fine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9201")]
    listen_address: SocketAddr,
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    block_on(receive(options.listen_address))?
}

async fn receive(address: SocketAddr) -> Result<Exit, Exit> {
    let failed = |what: &str, error: std::io::Error| {
        complain(&format_args!("{what}: {error}"));
        Exit::Failed
    };
    let mut signals = StopSignals::listen().map_err(|error| failed("signals cannot be handled", error))?;
    let listener =
        TcpListener::bind(address).await.map_err(|error| failed(&format!("{address} cannot be listened on"), error))?;
    complain(&format_args!("receiving on http://{}/api/v1/write", listener.local_addr().unwrap_or(address)));

    let (taken, mut arrived) = mpsc::channel(REQUESTS_WAITING_MAX);
    let mut receiver = std::pin::pin!(receive::serve(listener, taken, Line::default(), std::future::pending()));
    loop {
        tokio::select! {
            Some(request) = arrived.recv() => say(&receive::print(&request).trim_end())?,
            served = &mut receiver => return served.map(|()| Exit::Fine).map_err(|error| failed("the receiver broke", error)),
            _ = signals.next() => return Ok(Exit::Fine),
        }
    }
}
