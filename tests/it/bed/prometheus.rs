//! A real Prometheus that receives remote-write.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{Samples, encoded, eventually, free_port, get, request};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrometheusOptions {
    /// How much older than its newest sample a sample may be; none is Prometheus' default.
    pub(crate) out_of_order_time_window: Option<Duration>,
}

pub(crate) struct Prometheus {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    program: PathBuf,
    arguments: Vec<String>,
}

/// One raw sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raw {
    pub(crate) at_millis: i64,
    pub(crate) value: f64,
}

impl Prometheus {
    pub(crate) fn start(options: PrometheusOptions) -> Self {
        let window = options.out_of_order_time_window.unwrap_or_default().as_secs();
        let config =
            format!("global: {{scrape_interval: 1h}}\nstorage: {{tsdb: {{out_of_order_time_window: {window}s}}}}\n");
        Self::configured(&config)
    }

    /// Starts one with a configuration of the test's own.
    pub(crate) fn configured(config: &str) -> Self {
        Self::of(PathBuf::from("prometheus"), config, &[])
    }

    /// Starts a 3.x, which takes remote-write 2.0, and keeps the metadata that comes with it in a log that can be read.
    pub(crate) fn start_3() -> Self {
        let arguments = [
            "--enable-feature=metadata-wal-records,native-histograms,exemplar-storage",
            "--no-storage.tsdb.wal-compression",
        ];
        Self::of(program_3(), "global: {scrape_interval: 1h}\n", &arguments)
    }

    /// Starts a 3.x that evaluates the groups of this rule file every second.
    pub(crate) fn start_3_with_rules(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("rules.yml"), rules).unwrap();
        let config = "global: {scrape_interval: 1h, evaluation_interval: 1s}\nrule_files: [rules.yml]\n";
        Self::within(directory, program_3(), config, &[])
    }

    fn of(program: PathBuf, config: &str, arguments: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), program, config, arguments)
    }

    fn within(directory: TempDir, program: PathBuf, config: &str, arguments: &[&str]) -> Self {
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut prometheus = Self { directory, port: free_port(), program, arguments, process: None };
        prometheus.start_again();
        prometheus
    }

    /// Starts it on the same port and data as before.
    pub(crate) fn start_again(&mut self) {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .arg("--web.enable-remote-write-receiver")
            .arg("--web.enable-lifecycle")
            .arg("--query.lookback-delta=5m")
            .current_dir(self.directory.path());
        self.process = Some(Process::start(&mut command, &self.directory.path().join("log")));
        eventually("prometheus is ready", || get(&self.url("/-/ready")).is_some());
    }

    /// Loads another configuration; what is wrong with it where it is refused.
    pub(crate) fn reconfigure(&self, config: &str) -> Result<(), String> {
        std::fs::write(self.directory.path().join("prometheus.yml"), config).unwrap();
        let (status, body) = request("POST", &self.url("/-/reload")).expect("Prometheus answers");
        if status == 200 { Ok(()) } else { Err(body) }
    }

    pub(crate) fn stop(&mut self) {
        self.process.take().unwrap().terminate();
    }

    /// The version it says it is.
    pub(crate) fn version(&self) -> String {
        let answer: Value = serde_json::from_str(&get(&self.url("/api/v1/status/buildinfo")).unwrap()).unwrap();
        answer["data"]["version"].as_str().unwrap().to_owned()
    }

    /// Whether its write-ahead log holds `text`.
    pub(crate) fn log_holds(&self, text: &str) -> bool {
        let segments = std::fs::read_dir(self.directory.path().join("data/wal")).unwrap();
        segments
            .filter_map(|segment| std::fs::read(segment.unwrap().path()).ok())
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn write_url(&self) -> String {
        self.url("/api/v1/write")
    }

    /// The answer to an instant query: labels and the `value` or `values` member of each series.
    pub(crate) fn query(&self, expression: &str) -> Vec<(BTreeMap<String, String>, Value)> {
        let Some(body) = get(&self.url(&format!("/api/v1/query?query={}", encoded(expression)))) else {
            return Vec::new();
        };
        let answer: Value = serde_json::from_str(&body).unwrap();
        let series = |item: &Value| {
            let labels = serde_json::from_value(item["metric"].clone()).unwrap();
            let content = if item["values"].is_null() { &item["value"] } else { &item["values"] };
            (labels, content.clone())
        };
        answer["data"]["result"].as_array().unwrap().iter().map(series).collect()
    }

    /// The value a query gives now; `None` where there is no series.
    pub(crate) fn value_now(&self, expression: &str) -> Option<f64> {
        let result = self.query(expression);
        assert!(result.len() <= 1, "{expression} is not one series: {result:?}");
        result.first()?.1[1].as_str()?.parse().ok()
    }

    /// What a query gives now, by the value of `label`, which tells its series apart.
    pub(crate) fn values_by(&self, label: &str, expression: &str) -> BTreeMap<String, f64> {
        let result = self.query(expression);
        let count = result.len();
        let value = |(labels, value): (BTreeMap<String, String>, Value)| {
            (labels.get(label).cloned().unwrap_or_default(), value[1].as_str().unwrap().parse().unwrap())
        };
        let values: BTreeMap<String, f64> = result.into_iter().map(value).collect();
        assert_eq!(values.len(), count, "{label} tells the series of {expression} apart");
        values
    }

    /// Every sample of the last hour of the series `selector` names, at its own timestamp; stale markers are not shown.
    pub(crate) fn raw(&self, selector: &str) -> Vec<Raw> {
        let result = self.query(&format!("{selector}[1h]"));
        result
            .iter()
            .flat_map(|(_, values)| points(values))
            .map(|(at_millis, text)| Raw { at_millis, value: text.parse().unwrap() })
            .collect()
    }

    /// Every sample of the last hour of every series; stale markers are not shown.
    pub(crate) fn all_samples(&self) -> Samples {
        let result = self.query("{__name__=~\".+\"}[1h]");
        result.iter().map(|(labels, values)| (series_name(labels), points(values).collect())).collect()
    }
}

fn program_3() -> PathBuf {
    let program = std::env::var_os("OUTHAUL_TEST_PROMETHEUS_3");
    program.expect("OUTHAUL_TEST_PROMETHEUS_3 names a Prometheus 3.x; run tests/run, which fetches it").into()
}

/// A series' identity as text: its labels in order.
pub(crate) fn series_name(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(",")
}

/// A value as Prometheus' API writes it, for comparison: parsed and printed again, so that both sides have one spelling.
pub(crate) fn number(value: f64) -> String {
    format!("{value:?}")
}

fn points(values: &Value) -> impl Iterator<Item = (i64, String)> + '_ {
    values.as_array().into_iter().flatten().map(|point| {
        let seconds = point[0].as_f64().unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit")]
        let millis = (seconds * 1000.0).round() as i64;
        (millis, number(point[1].as_str().unwrap().parse().unwrap()))
    })
}
