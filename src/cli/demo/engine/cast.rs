//! Who plays in the simulated engine's world, and what each has behind it when the curtain rises.

use super::chance::Chance;
use super::world::{Check, Container, Health, MILLISECOND, Nanos, Nature, SECOND, State, Step};

/// How a container is set up before anything happens to it.
pub(super) struct Role {
    name: &'static str,
    image: &'static str,
    command: &'static [&'static str],
    nature: Nature,
    check: Option<&'static str>,
}

impl Role {
    /// The container at `now`.
    pub(super) fn enter(self, now: Nanos, chance: &mut Chance) -> Container {
        let created = now - chance.between(3 * 24 * 3600, 9 * 24 * 3600) * SECOND;
        let started = now - chance.between(1800, 2 * 24 * 3600) * SECOND;
        let first = match self.nature {
            Nature::Steady | Nature::Flapping => Step::Probe,
            Nature::Restarted => Step::Kill,
            Nature::Job => Step::Create,
            Nature::Crashing => Step::Die,
            Nature::Leaking => Step::Oom,
        };
        let due = now + chance.between(500, 5000) * MILLISECOND;
        let check = self.check.map(|command| Check {
            command,
            interval: if matches!(self.nature, Nature::Flapping) { 2 * SECOND } else { 15 * SECOND },
            health: Health::Healthy,
            failing_streak: 0,
            log: Vec::new(),
            works: true,
        });
        let labels = [("com.docker.compose.project", "till"), ("com.docker.compose.service", self.name)];
        // A job is not there between two runs, and the migration is over; the others run.
        let state = match self.nature {
            Nature::Job => State::Absent,
            Nature::Steady if check.is_none() => State::Exited,
            _ => State::Running,
        };
        Container {
            id: chance.hex64(),
            name: self.name,
            image: self.image,
            image_id: format!("sha256:{}", chance.hex64()),
            command: self.command,
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            restart_policy: if state == State::Running { "always" } else { "no" },
            memory_limit: if matches!(self.nature, Nature::Leaking) { 256 << 20 } else { 0 },
            created,
            state,
            started: Some(if state == State::Running { started } else { created + SECOND }),
            finished: (state != State::Running).then_some(created + 9 * SECOND),
            exit_code: 0,
            oom_killed: false,
            restart_count: 0,
            check,
            pid: if state == State::Running { chance.between(1000, 30_000) } else { 0 },
            nature: self.nature,
            backoff: 0,
            due: (state != State::Exited).then_some((due, first)),
        }
    }
}

/// Who plays.
pub(super) fn cast() -> Vec<Role> {
    let role = |name, image, command, nature, check| Role { name, image, command, nature, check };
    vec![
        role("till-ui", "till/ui:4.2.1", &["node", "server.js"], Nature::Restarted, None),
        role("postgres", "postgres:16", &["postgres"], Nature::Steady, Some("pg_isready -q")),
        role("redis", "redis:7", &["redis-server"], Nature::Steady, Some("redis-cli ping")),
        role(
            "mqtt",
            "eclipse-mosquitto:2",
            &["/usr/sbin/mosquitto"],
            Nature::Steady,
            Some("mosquitto_sub -t '$SYS/#' -C 1"),
        ),
        role(
            "printer",
            "till/printer:1.9.0",
            &["printerd", "--tray", "2"],
            Nature::Flapping,
            Some("lpstat -p receipt"),
        ),
        role("stock-sync", "till/sync:2.0.3", &["sync", "--once"], Nature::Job, None),
        role("loyalty", "till/loyalty:0.3.0", &["python", "-m", "loyalty"], Nature::Crashing, None),
        role("camera", "till/camera:1.1.4", &["camera", "--fps", "5"], Nature::Leaking, None),
        role("migrate", "till/migrate:4.2.1", &["migrate", "up"], Nature::Steady, None),
    ]
}
