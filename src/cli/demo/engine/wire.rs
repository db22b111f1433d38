//! The simulated engine's answers, shaped as Docker 20.10 (API 1.41) shapes them. Pure: from the world to JSON.

use serde_json::{Value, json};

use super::world::{Container, Event, Health, Nanos, Probe, State};

/// What the engine says it is.
pub(super) const ENGINE_VERSION: &str = "20.10.24";
/// The newest version of the API that it speaks.
pub(super) const API_VERSION: &str = "1.41";
/// The oldest version of the API that it speaks.
pub(super) const MIN_API_VERSION: &str = "1.12";
/// The host's name, which becomes the label `instance`.
const HOST_NAME: &str = "till-3";
/// How Go writes the zero time, which stands for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

const SECOND: Nanos = 1_000_000_000;

/// One line of `GET /events`.
pub(super) fn event(event: &Event) -> Value {
    json!({
        "status": event.action,
        "id": event.id,
        "from": event.image,
        "Type": "container",
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.at / SECOND,
        "timeNano": event.at,
    })
}

/// One item of `GET /containers/json`.
pub(super) fn list_item(container: &Container, now: Nanos) -> Value {
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": container.command.join(" "),
        "Created": container.created / SECOND,
        "Ports": [],
        "Labels": container.labels,
        "State": container.state.word(),
        "Status": status_text(container, now),
        "HostConfig": {"NetworkMode": "till_default"},
        "NetworkSettings": {"Networks": {"till_default": network()}},
        "Mounts": [],
    })
}

/// `GET /containers/{id}/json`.
pub(super) fn inspect(container: &Container) -> Value {
    let path = |file: &str| format!("/var/lib/docker/containers/{}/{file}", container.id);
    let short_id = container.id.get(..12).unwrap_or_default();
    json!({
        "Id": container.id,
        "Created": time(Some(container.created)),
        "Path": container.command.first(),
        "Args": container.command.get(1..),
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": path("resolv.conf"),
        "HostnamePath": path("hostname"),
        "HostsPath": path("hosts"),
        "LogPath": path(&format!("{}-json.log", container.id)),
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "docker-default",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": {"Data": null, "Name": "overlay2"},
        "Mounts": [],
        "Config": config(container, short_id),
        "NetworkSettings": {"Bridge": "", "SandboxID": "", "Ports": {}, "Networks": {"till_default": network()}},
    })
}

fn state(container: &Container) -> Value {
    let mut state = json!({
        "Status": container.state.word(),
        "Running": container.state.is_running(),
        "Paused": false,
        "Restarting": container.state == State::Restarting,
        "OOMKilled": container.oom_killed,
        "Dead": false,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": "",
        "StartedAt": time(container.started),
        "FinishedAt": time(container.finished),
    });
    if let (Some(check), Some(state)) = (&container.check, state.as_object_mut()) {
        let probe = |probe: &Probe| json!({"Start": time(Some(probe.start)), "End": time(Some(probe.end)), "ExitCode": i32::from(probe.failed), "Output": ""});
        let log: Vec<Value> = check.log.iter().map(probe).collect();
        state.insert(
            "Health".into(),
            json!({"Status": check.health.word(), "FailingStreak": check.failing_streak, "Log": log}),
        );
    }
    state
}

fn config(container: &Container, hostname: &str) -> Value {
    let mut config = json!({
        "Hostname": hostname, "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null,
        "Cmd": container.command, "Image": container.image, "Volumes": null, "WorkingDir": "",
        "Entrypoint": null, "OnBuild": null, "Labels": container.labels,
    });
    if let (Some(check), Some(config)) = (&container.check, config.as_object_mut()) {
        config.insert("Healthcheck".into(), json!({"Test": ["CMD-SHELL", check.command], "Interval": check.interval}));
    }
    config
}

fn host_config(container: &Container) -> Value {
    json!({
        "Binds": null, "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "till_default", "PortBindings": {},
        "RestartPolicy": {"Name": container.restart_policy, "MaximumRetryCount": 0}, "AutoRemove": false,
        "IpcMode": "private", "OomScoreAdj": 0, "Privileged": false, "Runtime": "runc", "CpuShares": 0,
        "Memory": container.memory_limit, "NanoCpus": 0, "CgroupParent": "", "CpuPeriod": 0, "CpuQuota": 0,
        "MemorySwap": container.memory_limit, "OomKillDisable": false, "PidsLimit": null,
    })
}

fn network() -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "NetworkID": "", "EndpointID": "", "Gateway": "172.18.0.1",
        "IPAddress": "", "IPPrefixLen": 16, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "MacAddress": "", "DriverOpts": null,
    })
}

/// `GET /version`.
pub(super) fn version() -> Value {
    json!({
        "Platform": {"Name": "simulated by outhaul"},
        "Components": [{"Name": "Engine", "Version": ENGINE_VERSION, "Details": {"ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux"}}],
        "Version": ENGINE_VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "GitCommit": "",
        "GoVersion": "", "Os": "linux", "Arch": "amd64", "KernelVersion": "", "BuildTime": NEVER,
    })
}

/// `GET /info`.
pub(super) fn info(containers: &[&Container], now: Nanos) -> Value {
    let running = containers.iter().filter(|container| container.state.is_running()).count();
    json!({
        "ID": "OUTH:AULS:IMUL:ATED", "Containers": containers.len(), "ContainersRunning": running, "ContainersPaused": 0,
        "ContainersStopped": containers.len() - running, "Images": containers.len(), "Driver": "overlay2",
        "DriverStatus": null, "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file"]},
        "MemoryLimit": true, "SwapLimit": true, "Debug": false, "SystemTime": time(Some(now)), "LoggingDriver": "json-file",
        "CgroupDriver": "systemd", "CgroupVersion": "2", "NEventsListener": 0, "KernelVersion": "", "OperatingSystem": "simulated by outhaul",
        "OSType": "linux", "Architecture": "x86_64", "IndexServerAddress": "", "RegistryConfig": null, "NCPU": 4,
        "MemTotal": 8_u64 << 30, "DockerRootDir": "/var/lib/docker", "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Name": HOST_NAME, "Labels": [], "ExperimentalBuild": false, "ServerVersion": ENGINE_VERSION, "Runtimes": {"runc": {"path": "runc"}},
        "DefaultRuntime": "runc", "Swarm": {"NodeID": "", "LocalNodeState": "inactive"}, "LiveRestoreEnabled": false,
        "InitBinary": "docker-init", "SecurityOptions": [], "Warnings": null,
    })
}

/// A time as Go writes it.
fn time(at: Option<Nanos>) -> String {
    let time = at.and_then(|at| jiff::Timestamp::from_nanosecond(i128::from(at)).ok());
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// The `Status` column (moby `daemon/container/state.go`, `State.String`).
fn status_text(container: &Container, now: Nanos) -> String {
    let since = |at: Option<Nanos>| human_duration((now - at.unwrap_or(now)).max(0) / SECOND);
    match container.state {
        State::Restarting => format!("Restarting ({}) {} ago", container.exit_code, since(container.finished)),
        State::Created => "Created".to_owned(),
        State::Exited | State::Absent => format!("Exited ({}) {} ago", container.exit_code, since(container.finished)),
        State::Running => {
            let health = container.health().map_or_else(String::new, |health| match health {
                Health::Starting => " (health: starting)".to_owned(),
                known => format!(" ({})", known.word()),
            });
            format!("Up {}{health}", since(container.started))
        }
    }
}

/// A duration in the words of docker/go-units `HumanDuration`.
fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn durations_read_as_the_engine_writes_them() {
        let expected = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ];
        for (seconds, words) in expected {
            assert_eq!(human_duration(seconds), words, "{seconds} s");
        }
    }

    /// Names of the members of an object, with those of the objects within.
    fn members(prefix: &str, value: &Value, names: &mut Vec<String>) {
        for (name, member) in value.as_object().into_iter().flatten() {
            names.push(format!("{prefix}{name}"));
            if matches!(name.as_str(), "State" | "Actor" | "Health") {
                members(&format!("{prefix}{name}."), member, names);
            }
        }
    }

    #[test]
    fn answers_have_no_member_that_the_real_engine_does_not_have_and_all_that_matter() {
        let real: [Value; 3] = [
            serde_json::from_str(include_str!("../../../../tests/fixtures/docker/inspect-health-healthy.json"))
                .unwrap(),
            serde_json::from_str::<Value>(include_str!("../../../../tests/fixtures/docker/list-healthy.json")).unwrap()
                [0]
            .clone(),
            serde_json::from_str(
                include_str!("../../../../tests/fixtures/docker/events.jsonl").lines().next().unwrap(),
            )
            .unwrap(),
        ];
        let start = Timestamp::from_millis(1_795_000_000_000);
        let mut world = World::new(1, start);
        let told = world.advance(start.plus(std::time::Duration::from_secs(60)));
        let containers = world.containers();
        let printer = containers.into_iter().find(|container| container.name == "printer").unwrap();
        let ours = [inspect(printer), list_item(printer, printer.created), event(&told[0])];
        for (real, ours) in real.iter().zip(&ours) {
            let (mut known, mut told) = (Vec::new(), Vec::new());
            members("", real, &mut known);
            members("", ours, &mut told);
            known.sort();
            told.sort();
            assert_eq!(told, known);
        }
    }
}
