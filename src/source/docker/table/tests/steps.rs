//! Whatever an engine says, in whatever order: time, counters and series keep their rules.

use proptest::prelude::*;

use super::*;

/// Anything an engine could say, and some things none should.
#[derive(Clone, Debug)]
enum Step {
    Event(u8, u8, i64, u8),
    Tick(Vec<(u8, u8, u8)>),
    Inspect(u8, i64, i64, i64, u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4_u8, 0..4_u8, -3000..3000_i64, any::<u8>()).prop_map(|(a, b, c, d)| Step::Event(a, b, c, d)),
        3 => prop::collection::vec((0..4_u8, 0..4_u8, any::<u8>()), 0..4).prop_map(Step::Tick),
        3 => (0..4_u8, -2..9_i64, 0..200_000_i64, 0..200_000_i64, any::<u8>())
            .prop_map(|(a, b, c, d, e)| Step::Inspect(a, b, c, d, e)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

fn any_action(number: u8) -> Action {
    match number % 14 {
        0 => Action::Create,
        1 | 2 => Action::Start,
        3 => died(i64::from(number)),
        4 => Action::Die(crate::source::docker::events::Death::default()),
        5 => Action::Oom,
        6 => Action::Kill,
        7 => Action::Stop,
        8 => Action::Pause,
        9 => Action::Unpause,
        10 => Action::Rename,
        11 => Action::Destroy,
        12 => Action::Health(Health::ALL[usize::from(number) % 3]),
        _ => Action::Other,
    }
}

const WORDS: [(&str, &str); 6] = [
    ("running", "Up 1 minute"),
    ("running", "Up 1 minute (healthy)"),
    ("exited", "Exited (1) 1 minute ago"),
    ("restarting", "Restarting (1) 1 second ago"),
    ("paused", "Up 1 minute (Paused)"),
    ("odd", "odd"),
];

fn run(steps: Vec<Step>) -> Vec<Observation> {
    let mut table = table();
    let mut now = 100_000;
    let mut told = Vec::new();
    for step in steps {
        now += 100;
        match step {
            Step::Event(id, name, offset, action) => {
                let event = event(&id.to_string(), &format!("n{name}"), now + offset, any_action(action));
                told.extend(table.apply(&event, ms(now)));
            }
            Step::Tick(entries) => {
                let all: Vec<_> = entries
                    .iter()
                    .map(|(id, name, word)| (id.to_string(), format!("n{name}"), WORDS[usize::from(*word) % 6]))
                    .collect();
                let all: Vec<_> = all.iter().map(|(i, n, (s, t))| (i.as_str(), n.as_str(), *s, *t)).collect();
                table.reconcile(&list_of(&all), ms(now), &BTreeSet::new());
                table.plan_inspects(ms(now));
                told.push(table.everything(ms(now)));
            }
            Step::Inspect(id, count, started, finished, word) => {
                let json = serde_json::json!({"Id": id.to_string(), "RestartCount": count,
                    "State": {"Status": WORDS[usize::from(word) % 6].0, "ExitCode": word,
                        "StartedAt": jiff::Timestamp::from_millisecond(started).unwrap().to_string(),
                        "FinishedAt": jiff::Timestamp::from_millisecond(finished).unwrap().to_string()},
                    "HostConfig": {"RestartPolicy": {"Name": if word % 2 == 0 { "always" } else { "no" }}}});
                table.inspected(&id.to_string(), &parse_object(json.to_string().as_bytes()).unwrap(), ms(now));
            }
            Step::Restart => {
                let blob = persist::write(&table, "host-1", 7);
                let until = told.last().map(|observation: &Observation| observation.at);
                table = table_with(choice(Filter::default()), until);
                Stored::read(&blob).unwrap().restore(&mut table);
            }
        }
    }
    told
}

proptest! {
    #[test]
    fn times_never_run_backwards_counters_never_decrease_and_no_series_stands_twice(steps in steps()) {
        let mut last: BTreeMap<String, (Timestamp, Option<f64>)> = BTreeMap::new();
        let mut latest = Timestamp::MIN;
        for observation in run(steps) {
            prop_assert!(observation.at >= latest, "observations are in time order");
            latest = observation.at;
            let mut here = BTreeSet::new();
            for sample in &observation.samples {
                let labels = sample.series.labels().to_string();
                prop_assert!(here.insert(labels.clone()), "{} stands twice", labels);
                let before = last.get(&labels).copied().unwrap_or((Timestamp::MIN, None));
                let same_tick = observation.scope == Scope::Everything && before.0 == observation.at;
                prop_assert!(observation.at > before.0 || same_tick, "{labels} at {} after {}", observation.at, before.0);
                let mut value = before.1;
                if !sample.value.is_stale() {
                    let number = sample.value.number();
                    if labels.contains("_total{") {
                        prop_assert!(value.is_none_or(|value| number >= value), "{labels} fell from {value:?} to {number}");
                    }
                    value = Some(number);
                }
                last.insert(labels, (observation.at, value));
            }
        }
    }

    #[test]
    fn no_json_is_too_odd(list in ".{0,200}", inspect in ".{0,200}", blob in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(list) = List::parse(list.as_bytes()) {
            table().reconcile(&list, ms(1), &BTreeSet::new());
        }
        parse_object::<Inspect>(inspect.as_bytes());
        prop_assert!(Stored::read(&blob).is_none());
    }
}
