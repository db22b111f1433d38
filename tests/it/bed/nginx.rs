//! A real nginx with every path in a temporary directory: what stands in front of receivers.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port};

pub(crate) struct Nginx {
    process: Process,
    directory: TempDir,
}

impl Nginx {
    /// Starts one with these contents of its `http` block, and waits until `port` is listened on.
    pub(crate) fn start(http: &str, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), http);
        let process = Process::start(&mut command(directory.path()), &directory.path().join("log"));
        let nginx = Self { process, directory };
        eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        nginx
    }

    /// Loads other contents of the `http` block, as an operator does.
    pub(crate) fn reload(&self, http: &str) {
        write(self.directory.path(), http);
        let output = command(self.directory.path()).args(["-s", "reload"]).output().unwrap();
        assert!(output.status.success(), "nginx -s reload: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// One line a request: method, path, status and the proxy it came through.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("access")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    /// Killed, it would leave its workers behind.
    fn drop(&mut self) {
        if !self.process.has_ended() {
            self.process.terminate();
        }
    }
}

/// A `server` block on a port of its own.
pub(crate) struct Site {
    pub(crate) port: u16,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { port: free_port() }
    }

    /// Plain http.
    pub(crate) fn plain(&self, rules: &str) -> String {
        format!("server {{ listen 127.0.0.1:{}; {rules} }}\n", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf"));
    command.arg("-e").arg(directory.join("errors"));
    // For a fetched one, whose libraries were fetched as well.
    if let Some(libraries) = std::env::var_os("OUTHAUL_TEST_LIBRARIES") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn write(directory: &Path, http: &str) {
    let path = |name: &str| directory.join(name).display().to_string();
    // Its workers would give up root's rights and could not enter the directory; without root's rights the line means nothing.
    let config = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {};\nerror_log stderr warn;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
         log_format short '$request_method $uri $status $http_via';\naccess_log {} short;\n\
         client_body_temp_path {};\nproxy_temp_path {};\nfastcgi_temp_path {};\nuwsgi_temp_path {};\nscgi_temp_path {};\n\
         {http}}}\n",
        path("pid"),
        path("access"),
        path("body"),
        path("proxy"),
        path("fastcgi"),
        path("uwsgi"),
        path("scgi"),
    );
    std::fs::write(directory.join("nginx.conf"), config).unwrap();
}
