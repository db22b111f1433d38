//! The real binary.

use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use super::process::Process;
use super::{eventually, free_port, get};

pub(crate) struct Agent {
    /// Before the directory, so that its log is still there to be shown when it is dropped.
    process: Process,
    directory: TempDir,
    port: u16,
}

impl Agent {
    /// Runs `outhaul run` on `config`, with a buffer and a local page of its own.
    pub(crate) fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let buffer = if config.contains("buffer:") {
            String::new()
        } else {
            format!("buffer: {{path: {}}}\n", directory.path().join("buffer").display())
        };
        let whole = format!("{config}{buffer}web: {{listen_address: \"127.0.0.1:{port}\"}}\n");
        std::fs::write(directory.path().join("outhaul.yml"), whole).unwrap();
        let process = Self::spawn(&directory);
        Self { process, directory, port }
    }

    fn spawn(directory: &TempDir) -> Process {
        let mut command = outhaul();
        command.arg("run").arg("--config.file").arg(directory.path().join("outhaul.yml"));
        Process::start(&mut command, &directory.path().join("log"))
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Self::spawn(&self.directory);
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; it must end well.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let status = self.process.terminate();
        assert!(status.success(), "{status}");
        status
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn wait_until_ready(&self) {
        eventually("outhaul is ready", || get(&self.url("/-/ready")).is_some());
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The value of the one series of `name` that has all of `labels`, from the local page.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        value_on(&get(&self.url("/metrics"))?, name, labels)
    }

    /// Whatever was appended for an endpoint has had its fate, or waits: both sides are of one look at the page.
    #[track_caller]
    pub(crate) fn assert_balanced(&self, endpoint: &str) {
        let (appended, accounted) = self.ledger(endpoint);
        assert!(appended > 0.0, "{endpoint}");
        assert_eq!(appended, accounted, "the ledger of {endpoint} balances");
    }

    /// The ledger of an endpoint: appended, and the sum of everything that may have become of it. One look at the page, so
    /// that no tick comes between two numbers.
    fn ledger(&self, endpoint: &str) -> (f64, f64) {
        let page = get(&self.url("/metrics")).unwrap();
        let of_endpoint = format!("remote_name=\"{endpoint}\"");
        let (mut appended, mut accounted) = (0.0, 0.0);
        for line in page.lines().filter(|line| line.contains(&of_endpoint)) {
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            if line.starts_with("outhaul_ledger_samples_total{") && line.contains("fate=\"appended\"") {
                appended += value;
            } else if line.starts_with("outhaul_ledger_samples_total{")
                || line.starts_with("outhaul_ledger_pending_samples{")
            {
                accounted += value;
            }
        }
        (appended, accounted)
    }
}

fn value_on(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let line = page.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && wanted.iter().all(|label| line.contains(label.as_str()))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The binary with an environment that knows nothing but the engine.
pub(crate) fn outhaul() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outhaul"));
    command.env_clear();
    for name in ["DOCKER_HOST", "PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
