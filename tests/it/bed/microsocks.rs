//! A real SOCKS5 server.

use std::process::Command;

use tempfile::TempDir;

use super::free_port;
use super::process::Process;

/// Whom it lets through, and the password.
const USER: (&str, &str) = ("diver", "under-the-wall");

pub(crate) struct Microsocks {
    port: u16,
    process: Process,
    _directory: TempDir,
}

impl Microsocks {
    /// Starts one that asks for [`USER`].
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let (user, password) = USER;
        let mut command = Command::new("microsocks");
        command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", user, "-P", password]);
        let process = Process::start(&mut command, &directory.path().join("log"));
        super::eventually("microsocks listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, process, _directory: directory }
    }

    /// With the user's name and password; `scheme` says who looks names up.
    pub(crate) fn url(&self, scheme: &str) -> String {
        let (user, password) = USER;
        format!("{scheme}://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// One line a connection: from where, to which host and port.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
