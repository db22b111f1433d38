//! A real Pushgateway.

use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, get};

pub(crate) struct Pushgateway {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl Pushgateway {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus-pushgateway");
        // Debian's build keeps its groups in a file of the whole machine unless it is told otherwise.
        command
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--persistence.file={}", directory.path().join("groups").display()));
        let process = Process::start(&mut command, &directory.path().join("log"));
        let gateway = Self { port, _process: process, _directory: directory };
        eventually("the pushgateway is ready", || get(&format!("{}/-/ready", gateway.url())).is_some());
        gateway
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many groups it holds.
    pub(crate) fn groups(&self) -> usize {
        let body = get(&format!("{}/api/v1/metrics", self.url())).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        answer["data"].as_array().map_or(0, Vec::len)
    }

    /// What a Prometheus would scrape.
    pub(crate) fn metrics_text(&self) -> String {
        get(&format!("{}/metrics", self.url())).unwrap()
    }
}
