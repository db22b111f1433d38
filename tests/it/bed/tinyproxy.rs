//! A real forward proxy.

use std::process::Command;

use tempfile::TempDir;

use super::free_port;
use super::process::Process;

/// Whom it lets through, and the password.
pub(crate) const USER: (&str, &str) = ("walker", "through-the-wall");

pub(crate) struct Tinyproxy {
    port: u16,
    process: Process,
    _directory: TempDir,
}

impl Tinyproxy {
    /// Starts one that asks for [`USER`] and connects to `tls_port` and no other by CONNECT.
    pub(crate) fn start(tls_port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = directory.path().join("tinyproxy.conf");
        let (user, password) = USER;
        let settings = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Connect\n\
             BasicAuth {user} {password}\nConnectPort {tls_port}\nViaProxyName \"the-wall\"\n"
        );
        std::fs::write(&config, settings).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        let process = Process::start(&mut command, &directory.path().join("log"));
        super::eventually("tinyproxy listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, process, _directory: directory }
    }

    /// With the user's name and password.
    pub(crate) fn url(&self) -> String {
        let (user, password) = USER;
        format!("http://{user}:{password}@127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
