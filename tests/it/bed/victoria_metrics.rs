//! A real `VictoriaMetrics`.

use std::ffi::OsString;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{encoded, eventually, free_port, get};

pub(crate) struct VictoriaMetrics {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl VictoriaMetrics {
    pub(crate) fn start() -> Self {
        Self::of("victoria-metrics".into())
    }

    /// Starts one that takes its own variant of remote-write 1.0, with zstd.
    pub(crate) fn start_newer() -> Self {
        let program = std::env::var_os("OUTHAUL_TEST_NEWER_VICTORIA_METRICS");
        Self::of(program.expect("OUTHAUL_TEST_NEWER_VICTORIA_METRICS names a program; run tests/run, which fetches it"))
    }

    fn of(program: OsString) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        command
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg(format!("-storageDataPath={}", directory.path().join("data").display()))
            .arg("-memory.allowedBytes=128MB");
        let process = Process::start(&mut command, &directory.path().join("log"));
        let server = Self { port, _process: process, _directory: directory };
        eventually("victoria-metrics is ready", || get(&server.url("/health")).is_some());
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The raw samples of the series `selector` names: instants in milliseconds and values.
    pub(crate) fn export(&self, selector: &str) -> Vec<(i64, f64)> {
        // Recent samples are searchable only once they were flushed.
        get(&self.url("/internal/force_flush"));
        let body = get(&self.url(&format!("/api/v1/export?match[]={}", encoded(selector)))).unwrap_or_default();
        let lines = body.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let points = |line: serde_json::Value| {
            let numbers = |key: &str| line[key].as_array().unwrap().clone();
            let pairs: Vec<(i64, f64)> = numbers("timestamps")
                .iter()
                .zip(&numbers("values"))
                .map(|(at, value)| (at.as_i64().unwrap(), value.as_f64().unwrap_or(f64::NAN)))
                .collect();
            pairs
        };
        lines.flat_map(points).collect()
    }
}
