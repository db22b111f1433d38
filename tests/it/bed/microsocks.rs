//! A real SOCKS5 proxy.

use std::process::Command;

use tempfile::TempDir;

use super::free_port;
use super::process::Process;

pub(crate) struct Microsocks {
    port: u16,
    process: Process,
    _directory: TempDir,
}

impl Microsocks {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("microsocks");
        command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::start(&mut command, &directory.path().join("log"));
        super::eventually("microsocks listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, process, _directory: directory }
    }

    /// Whoever uses it resolves names itself.
    pub(crate) fn url(&self) -> String {
        format!("socks5://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
