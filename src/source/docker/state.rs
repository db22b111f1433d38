//! The words engines use for what a container is doing, and the numbers they become.
//!
//! One enum each, whatever the engine's spelling; a word nobody knows is `None`, never a guess.

use serde::{Deserialize, Serialize};

/// What a container is doing. The discriminants are the values of `container_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Ran once and does not run.
    Exited = 0,
    /// Runs.
    Running = 1,
    /// Frozen.
    Paused = 2,
    /// Never ran.
    Created = 3,
    /// Ended, and the engine will start it again by its restart policy.
    Restarting = 4,
    /// Could not be removed.
    Dead = 5,
    /// Being removed.
    Removing = 6,
}

/// How far events tell states apart: the engine announces every change between these, and none within `Stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Never ran.
    New,
    /// Has a process that runs.
    Running,
    /// Has a process that is frozen.
    Paused,
    /// Ran once and has no process.
    Stopped,
}

impl State {
    /// From the engine's word: Docker's (`daemon/container/state.go`) and what Podman leaked before its compatible API
    /// mapped them (`stopped`, `stopping`, `initialized`, `configured`).
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "created" | "initialized" | "configured" => Self::Created,
            "running" | "stopping" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "exited" | "stopped" => Self::Exited,
            "dead" => Self::Dead,
            "removing" => Self::Removing,
            _ => return None,
        })
    }

    /// The value of `container_state`.
    pub(crate) fn code(self) -> f64 {
        f64::from(self as u8)
    }

    /// What events tell apart.
    pub(crate) fn liveness(self) -> Liveness {
        match self {
            Self::Created => Liveness::New,
            Self::Running => Liveness::Running,
            Self::Paused => Liveness::Paused,
            Self::Exited | Self::Restarting | Self::Dead | Self::Removing => Liveness::Stopped,
        }
    }
}

/// What a healthcheck last said. The discriminants are the values of `container_health`; 0 is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Health {
    /// Probes succeed.
    Healthy = 1,
    /// Probes failed as often as `retries` says.
    Unhealthy = 2,
    /// No verdict yet.
    Starting = 3,
}

impl Health {
    /// Every verdict, in the order of the counters kept for them.
    pub(crate) const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Starting];

    /// From the engine's word; "none", the empty word of old Podman and anything else are no verdict.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|health| health.word().eq_ignore_ascii_case(word))
    }

    /// The engine's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Starting => "starting",
        }
    }

    /// The value of `container_health`.
    pub(crate) fn code(self) -> f64 {
        f64::from(self as u8)
    }

    /// Its place in [`Health::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize - 1
    }
}

/// What is known of a container's healthcheck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Healthcheck {
    /// Nobody has said yet whether there is one.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one, and this is what it last said.
    Present(Health),
}

/// How a run ended. The words are the label `class`, and `outcome` of the aggregated short runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ExitClass {
    /// Code 0, or 143: what SIGTERM leaves, the way containers are asked to stop.
    Ok,
    /// Any other code of its own.
    Error,
    /// 128 + a signal's number.
    Signal,
    /// Out of memory.
    Oom,
    /// Nobody told the code.
    Unknown,
}

/// Whether the kernel killed something in the container for memory just before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oom {
    /// Yes.
    Seen,
    /// Not that we know.
    NotSeen,
}

/// 128 + SIGTERM.
const TERMINATED: i64 = 143;
/// 128 + n for n from 1 to SIGRTMAX (64).
const SIGNALS: std::ops::RangeInclusive<i64> = 129..=192;

impl ExitClass {
    /// Every class, in the order of the counters kept for them.
    pub(crate) const ALL: [Self; 5] = [Self::Ok, Self::Error, Self::Signal, Self::Oom, Self::Unknown];

    /// The class of a code.
    pub(crate) fn of(code: Option<i64>, oom: Oom) -> Self {
        match code {
            Some(0 | TERMINATED) => Self::Ok,
            _ if oom == Oom::Seen => Self::Oom,
            None => Self::Unknown,
            Some(code) if SIGNALS.contains(&code) => Self::Signal,
            Some(_) => Self::Error,
        }
    }

    /// The label value.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Unknown => "unknown",
        }
    }
}

/// When the engine starts a container again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestartPolicy {
    /// Never.
    No,
    /// Whenever it ends unless somebody stopped it; also when the engine starts.
    Always,
    /// Whenever it ends unless somebody stopped it.
    UnlessStopped,
    /// When it ends with a code other than 0, this often; 0 is without end.
    OnFailure(u64),
}

impl RestartPolicy {
    /// From the engine's word and `MaximumRetryCount`; the empty word is "no".
    pub(crate) fn parse(word: &str, retries: u64) -> Option<Self> {
        Some(match word {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure(retries),
            _ => return None,
        })
    }

    /// As it is written on the command line.
    pub(crate) fn text(self) -> String {
        match self {
            Self::No => "no".into(),
            Self::Always => "always".into(),
            Self::UnlessStopped => "unless-stopped".into(),
            Self::OnFailure(0) => "on-failure".into(),
            Self::OnFailure(retries) => format!("on-failure:{retries}"),
        }
    }

    /// Whether a run that nobody stopped is followed by another, after `retries` restarts already
    /// (`restartmanager.go`, `ShouldRestart`).
    pub(crate) fn restarts(self, code: Option<i64>, retries: u64) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(limit) => code != Some(0) && (limit == 0 || retries < limit),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_numbers_of_the_contract() {
        let codes = ["exited", "running", "paused", "created", "restarting", "dead", "removing"]
            .map(|word| State::parse(word).unwrap().code());
        assert_eq!(codes, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn podman_words_are_understood_and_unheard_of_ones_are_unknown() {
        assert_eq!(State::parse("stopped"), Some(State::Exited));
        assert_eq!(State::parse("stopping"), Some(State::Running));
        assert_eq!(State::parse("initialized"), Some(State::Created));
        assert_eq!(State::parse("unknown"), None);
        assert_eq!(State::parse(""), None);
    }

    #[test]
    fn health_has_the_numbers_of_the_contract() {
        assert_eq!(["healthy", "unhealthy", "starting"].map(|w| Health::parse(w).unwrap().code()), [1.0, 2.0, 3.0]);
        assert_eq!(Health::parse("none"), None);
        assert_eq!(Health::parse(""), None);
        for (place, health) in Health::ALL.into_iter().enumerate() {
            assert_eq!(health.index(), place);
        }
    }

    #[test]
    fn exits_are_classed_by_code_and_by_the_kernels_word() {
        let class = |code| ExitClass::of(Some(code), Oom::NotSeen);
        assert_eq!([0, 143].map(class), [ExitClass::Ok; 2]);
        assert_eq!([1, 127, 128, 193, -1].map(class), [ExitClass::Error; 5]);
        assert_eq!([129, 137, 192].map(class), [ExitClass::Signal; 3]);
        assert_eq!(ExitClass::of(Some(137), Oom::Seen), ExitClass::Oom);
        assert_eq!(ExitClass::of(Some(0), Oom::Seen), ExitClass::Ok, "a child was killed, the container ended well");
        assert_eq!(ExitClass::of(None, Oom::NotSeen), ExitClass::Unknown);
    }

    #[test]
    fn a_policy_says_what_the_engine_will_do() {
        let policy = |word, retries| RestartPolicy::parse(word, retries).unwrap();
        assert!(!policy("no", 0).restarts(Some(1), 0));
        assert!(policy("always", 0).restarts(Some(0), 9));
        assert!(policy("unless-stopped", 0).restarts(Some(0), 9));
        assert!(!policy("on-failure", 0).restarts(Some(0), 0));
        assert!(policy("on-failure", 0).restarts(Some(1), 999));
        assert!(policy("on-failure", 2).restarts(Some(1), 1));
        assert!(!policy("on-failure", 2).restarts(Some(1), 2));
        assert_eq!(policy("on-failure", 2).text(), "on-failure:2");
        assert_eq!(RestartPolicy::parse("sometimes", 0), None);
    }
}
