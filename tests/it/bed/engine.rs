//! The real Docker engine, through its own command line, touching only what the test made.

use std::fs;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::eventually;

const IMAGE: &str = "outhaul-test-busybox";

/// The programs the tests run in containers; busybox is all of them.
const APPLETS: [&str; 5] = ["sh", "sleep", "true", "false", "tail"];

/// One test's view of the engine. Its containers are gone when it is dropped.
pub(crate) struct Engine {
    test: String,
}

/// Something the engine said of a container.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) action: String,
    /// The engine's own time, rounded down.
    pub(crate) at_millis: i64,
}

impl Engine {
    /// The engine, for a test with a name of its own.
    pub(crate) fn get(test: &str) -> Self {
        static IMAGE_MADE: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        IMAGE_MADE.call_once(make_image);
        let unique = format!("{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { test: unique }
    }

    /// What to put into `docker.include.labels` so that an agent sees this test's containers only.
    pub(crate) fn label(&self) -> String {
        format!("outhaul.test={}", self.test)
    }

    /// Starts a container and says what it is called.
    pub(crate) fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let name = self.name(name);
        let label = self.label();
        let run_label = format!("outhaul.test.run={}", std::env::var("OUTHAUL_TEST_RUN").unwrap_or_default());
        let mut arguments =
            vec!["run", "-d", "--network", "none", "--name", &name, "--label", &label, "--label", &run_label];
        arguments.extend(options);
        arguments.push(IMAGE);
        arguments.extend(command);
        self.docker(&arguments);
        name
    }

    /// The full name of this test's container `name`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("outhaul-test-{}-{name}", self.test)
    }

    pub(crate) fn exec(&self, name: &str, command: &[&str]) {
        let mut arguments = vec!["exec", name];
        arguments.extend(command);
        self.docker(&arguments);
    }

    /// Runs the docker command line; a failure fails the test.
    #[track_caller]
    #[expect(clippy::unused_self, reason = "only whoever has an engine may talk to it")]
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        docker(arguments)
    }

    /// What the engine said of `name` so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Event> {
        let filter = format!("container={name}");
        let text =
            self.docker(&["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "{{json .}}"]);
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            Event {
                action: event["Action"].as_str().unwrap().to_owned(),
                at_millis: event["timeNano"].as_i64().unwrap() / 1_000_000,
            }
        };
        text.lines().map(event).collect()
    }

    /// Waits until the engine said `action` of `name`; everything it said.
    pub(crate) fn wait_for_event(&self, name: &str, action: &str) -> Vec<Event> {
        self.wait_for_events(name, action, 1)
    }

    /// Waits until the engine said `action` of `name` so many times; everything it said.
    pub(crate) fn wait_for_events(&self, name: &str, action: &str, times: usize) -> Vec<Event> {
        let mut events = Vec::new();
        eventually(&format!("{times} × {action} of {name}"), || {
            events = self.events(name);
            events.iter().filter(|event| event.action == action).count() >= times
        });
        events
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label());
        let ids = docker(&["ps", "-aq", "--filter", &filter]);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            drop(Command::new("docker").args(["rm", "-f"]).args(ids).output());
        }
    }
}

#[track_caller]
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("docker cannot be started: {error}; run tests/run, which installs it"));
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An image of Debian's static busybox: no image can be pulled where these tests run.
fn make_image() {
    let busybox = std::env::var("OUTHAUL_TEST_BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(&busybox, bin.join("busybox"))
        .unwrap_or_else(|error| panic!("{busybox}: {error}; run tests/run, which fetches it"));
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let tar = tempfile::NamedTempFile::new().unwrap();
    let packed = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(tar.path()).arg(".").status().unwrap();
    assert!(packed.success());
    docker(&["import", &tar.path().display().to_string(), IMAGE]);
}
