//! The table on what a real engine said (`tests/fixtures/docker/README.md`), and on what none should say.

use super::super::events::Death;
use super::super::events::tests::recorded;
use super::super::persist::{self, Stored};
use super::super::state::Health;
use super::super::wire::parse_object;
use super::*;
use crate::config::{Filter, Pattern};
use crate::model::{Target, Value};

mod steps;

const EVENTS: &[u8] = include_bytes!("../../../../tests/fixtures/docker/events.jsonl");
const INTERVAL: Duration = Duration::from_secs(15);

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/docker/", $name)).as_slice()
    };
}

fn choice(exclude: Filter) -> Choice {
    Choice::new(&crate::config::Docker {
        host: "unix:///x".into(),
        include: Filter::default(),
        exclude,
        container_labels: vec![],
    })
}

fn table_with(choice: Choice, recorded_until: Option<Timestamp>) -> Table {
    let wanted = WantedLabels::new(["monitor"]);
    let settings = Settings { choice, wanted, interval: INTERVAL, recorded_until };
    Table::new(settings, Families::new(Target::new("host-1"), "host-1", &["monitor".to_owned()]))
}

fn table() -> Table {
    table_with(choice(Filter::default()), None)
}

fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Applies every event when it happens.
fn play(table: &mut Table, events: &[Event]) -> Vec<Observation> {
    events.iter().filter_map(|event| table.apply(event, event.at())).collect()
}

/// `[(millis, value)]` of the one series that contains all of `parts`.
fn history(observations: &[Observation], parts: &[&str]) -> Vec<(i64, Value)> {
    let mut found = Vec::new();
    let mut series = BTreeSet::new();
    for observation in observations {
        for sample in &observation.samples {
            let labels = sample.series.labels().to_string();
            if parts.iter().all(|part| labels.contains(part)) {
                found.push((observation.at.millis(), sample.value));
                series.insert(labels);
            }
        }
    }
    assert!(series.len() <= 1, "more than one series: {series:?}");
    found
}

fn numbers(observations: &[Observation], parts: &[&str]) -> Vec<(i64, f64)> {
    let history = history(observations, parts);
    history.into_iter().filter(|(_, value)| !value.is_stale()).map(|(at, value)| (at, value.number())).collect()
}

fn of<'a>(events: &'a [Event], name: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.name.as_deref() == Some(name)).collect()
}

fn event(id: &str, name: &str, millis: i64, action: Action) -> Event {
    Event {
        at_nanos: millis * 1_000_000,
        id: id.into(),
        action,
        name: Some(name.into()),
        image: Some("img:1".into()),
        labels: BTreeMap::new(),
    }
}

fn died(code: i64) -> Action {
    Action::Die(Death { exit_code: Some(code), ..Death::default() })
}

fn list(json: &str) -> List {
    List::parse(json.as_bytes()).unwrap()
}

fn list_of(entries: &[(&str, &str, &str, &str)]) -> List {
    let entry = |(id, name, state, status): &(&str, &str, &str, &str)| {
        format!(
            r#"{{"Id":"{id}","Names":["/{name}"],"Image":"img:1","ImageID":"sha256:1","State":"{state}","Status":"{status}"}}"#
        )
    };
    list(&format!("[{}]", entries.iter().map(entry).collect::<Vec<_>>().join(",")))
}

fn tick(table: &mut Table, list: &List, at: i64) -> (Observation, u64) {
    let missed = table.reconcile(list, ms(at), &BTreeSet::new());
    (table.everything(ms(at)), missed)
}

#[test]
fn counters_say_when_they_began_and_gauges_and_stale_markers_do_not() {
    let mut table = table();
    let began = crate::clock::SANE_SINCE.millis();
    let events = [event("a", "web", began, Action::Create), event("a", "web", began + 1000, Action::Start)];
    let mut observations = play(&mut table, &events);
    observations.push(tick(&mut table, &list_of(&[("a", "web", "running", "Up")]), began + 4000).0);
    observations.push(tick(&mut table, &list_of(&[]), began + 7000).0);
    for sample in observations.iter().flat_map(|observation| &observation.samples) {
        let counts = sample.series.labels().metric_name().ends_with("_total") && !sample.value.is_stale();
        assert_eq!(sample.start, counts.then_some(ms(began - 1)), "{sample:?}");
    }
    assert!(observations[1].samples.iter().any(|sample| sample.start.is_some()));
}

#[test]
fn a_container_that_lives_300_ms_is_told_by_its_events_alone() {
    let events: Vec<Event> = of(&recorded(EVENTS), "dk-short").into_iter().cloned().collect();
    let at: Vec<i64> = events.iter().map(|event| event.at().millis()).collect();
    let told = play(&mut table(), &events);

    let state = numbers(&told, &["container_state{", "dk-short"]);
    assert_eq!(state, [(at[0], 3.0), (at[1], 1.0), (at[2], 0.0)]);
    assert_eq!(numbers(&told, &["container_starts_total", "dk-short"]), [(at[0], 0.0), (at[1], 1.0)]);
    assert_eq!(numbers(&told, &["container_exits_total", "class=\"ok\""]), [(at[0], 0.0), (at[2], 1.0)]);
    assert_eq!(numbers(&told, &["container_last_exit_code"]), [(at[2], 0.0)]);
    let run = (at[2] - at[1]) as f64 / 1000.0;
    assert_eq!(numbers(&told, &["container_last_run_seconds"]), [(at[2], run)]);
    assert_eq!(numbers(&told, &["container_runs_total", "image=\"bb:1\"", "outcome=\"ok\""]), [(at[2], 1.0)]);
    assert_eq!(numbers(&told, &["container_run_seconds_total"]), [(at[2], run)]);

    assert_eq!(history(&told, &["container_state{"]).last(), Some(&(at[3], Value::STALE)));
    let series = |observation: &Observation| -> BTreeSet<String> {
        observation.samples.iter().map(|sample| sample.series.labels().to_string()).collect()
    };
    let ended = told.last().unwrap();
    assert!(ended.samples.iter().all(|sample| sample.value.is_stale()));
    let lived: BTreeSet<String> = told.iter().flat_map(series).filter(|labels| labels.contains("dk-short")).collect();
    assert_eq!(series(ended), lived, "every series of the container ends at once");
}

#[test]
fn an_oom_kill_is_seen_although_the_engine_forgets_it_at_the_restart() {
    let told = play(&mut table(), &recorded(EVENTS));
    let exits = numbers(&told, &["container_exits_total", "\"dk-oom\"", "class=\"oom\""]);
    assert_eq!(exits.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0]);
    let kills = numbers(&told, &["container_oom_events_total", "\"dk-oom\""]);
    assert_eq!(kills.last().unwrap().1, 3.0);
    let codes = history(&told, &["container_last_exit_code", "\"dk-oom\""]);
    assert_eq!(codes[0].1, Value::new(137.0));
    assert_eq!(codes.len(), 2, "told once, ended once, and not reset by a restart: {codes:?}");
}

#[test]
fn restarts_are_told_by_the_inspect_and_from_then_on_by_events() {
    let events: Vec<Event> = of(&recorded(EVENTS), "dk-loop").into_iter().cloned().collect();
    let inspect: Inspect = parse_object(fixture!("inspect-loop.json")).unwrap();
    let id = inspect.id.clone().unwrap();
    let mut table = table();
    let last_start = events.iter().rposition(|event| event.action == Action::Start).unwrap();
    play(&mut table, &events[..last_start + 2]);
    let asked_at = events[last_start + 1].at().plus(Duration::from_secs(1));
    assert_eq!(table.inspected(&id, &inspect, asked_at), Told::Known, "events had told of every start and end");
    let restarts = numbers(&[table.everything(asked_at)], &["container_restarts_total"]);
    assert_eq!(restarts[0].1, 4.0, "of the five restarts the engine has counted, one is still to come");
    assert_eq!(inspect.restart_count, Some(5));
    let again = event(&id, "dk-loop", asked_at.millis() + 1, Action::Start);
    assert_eq!(numbers(&play(&mut table, &[again]), &["container_restarts_total"])[0].1, 5.0);
}

#[test]
fn a_restart_by_known_policy_is_counted_when_it_happens_and_a_start_by_hand_is_not() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create), event("a", "web", 1001, Action::Start)]);
    let json = br#"{"Id":"a","RestartCount":0,"HostConfig":{"RestartPolicy":{"Name":"always"}},"State":{}}"#;
    table.inspected("a", &parse_object(json).unwrap(), ms(5000));
    let told = play(
        &mut table,
        &[
            event("a", "web", 11_000, died(1)),
            event("a", "web", 12_000, Action::Start),
            event("a", "web", 21_000, Action::Kill),
            event("a", "web", 21_001, died(137)),
            event("a", "web", 31_000, Action::Start),
        ],
    );
    let state = numbers(&told, &["container_state{"]);
    assert_eq!(state, [(11_000, 4.0), (12_000, 1.0), (21_001, 0.0), (31_000, 1.0)]);
    assert_eq!(numbers(&told, &["container_restarts_total"]), [(12_000, 1.0)]);
    assert_eq!(numbers(&told, &["container_starts_total"]), [(12_000, 2.0), (31_000, 3.0)]);
}

#[test]
fn health_follows_events_is_none_while_frozen_and_starts_again_with_the_container() {
    let all = recorded(EVENTS);
    let events: Vec<Event> = of(&all, "dk-health").into_iter().cloned().collect();
    let told = play(&mut table(), &events);
    let at = |action: Action, nth: usize| {
        events.iter().filter(|event| event.action == action).nth(nth).unwrap().at().millis()
    };
    let health = numbers(&told, &["container_health{"]);
    let expected = [
        (at(Action::Health(Health::Healthy), 0), 1.0),
        (at(Action::Health(Health::Unhealthy), 0), 2.0),
        (at(Action::Pause, 0), 0.0),
        (at(Action::Unpause, 0), 2.0),
        (events.iter().find(|event| matches!(event.action, Action::Die(_))).unwrap().at().millis(), 0.0),
        (at(Action::Start, 1), 3.0),
        (at(Action::Health(Health::Unhealthy), 1), 2.0),
        (events.iter().rfind(|event| matches!(event.action, Action::Die(_))).unwrap().at().millis(), 0.0),
    ];
    assert_eq!(health, expected);
    let turned = numbers(&told, &["container_health_transitions_total", "to=\"unhealthy\""]);
    assert_eq!(turned.last().unwrap().1, 2.0);
}

#[test]
fn the_engines_list_agrees_with_what_its_events_told() {
    let all = recorded(EVENTS);
    let mut table = table();
    let until = |name: &str, action: Action| {
        all.iter().rposition(|event| event.name.as_deref() == Some(name) && event.action == action).unwrap()
    };
    let paused = until("dk-health", Action::Pause);
    play(&mut table, &all[..=paused]);
    let at = all[paused].at().plus(Duration::from_secs(1));
    table.listed = true;
    let list = List::parse(fixture!("list-paused.json")).unwrap();
    assert_eq!(table.reconcile(&list, at, &BTreeSet::new()), 0);
    assert_eq!(table.len(), 3);
}

#[test]
fn what_the_list_shows_and_no_event_told_is_a_missed_change() {
    let mut table = table();
    let running = list_of(&[("a", "web", "running", "Up 2 minutes"), ("b", "db", "running", "Up 2 minutes")]);
    assert_eq!(tick(&mut table, &running, 1000).1, 0, "the first list is no surprise");
    assert_eq!(tick(&mut table, &running, 2000).1, 0);
    let changed = list_of(&[("a", "web", "exited", "Exited (3) 1 second ago"), ("c", "new", "running", "Up 1 second")]);
    let (told, missed) = tick(&mut table, &changed, 3000);
    assert_eq!(missed, 3, "one exited, one gone, one new");
    let told = [told];
    assert_eq!(numbers(&told, &["container_state{", "\"web\""]), [(3000, 0.0)]);
    assert_eq!(numbers(&told, &["container_last_exit_code", "\"web\""]), [(3000, 3.0)]);
    assert_eq!(history(&told, &["container_state{", "\"db\""]), [(3000, Value::STALE)]);
}

#[test]
fn the_list_is_not_believed_about_what_an_event_just_touched() {
    let mut table = table();
    let running = list_of(&[("a", "web", "running", "Up 2 minutes")]);
    tick(&mut table, &running, 1000);
    table.apply(&event("a", "web", 1990, died(0)), ms(1995));
    let (told, missed) = tick(&mut table, &running, 2000);
    assert_eq!((numbers(&[told], &["container_state{"]), missed), (vec![(2000, 0.0)], 0));
    assert_eq!(tick(&mut table, &running, 3000).1, 1, "a second later it is");

    table.apply(&event("a", "web", 3990, Action::Destroy), ms(3995));
    tick(&mut table, &running, 4000);
    assert_eq!(table.len(), 0, "a list that lags does not bring back what was just removed");

    let pending = ["a"].into();
    assert_eq!(table.reconcile(&running, ms(5000), &pending), 0);
    assert_eq!(table.len(), 0, "its events are on their way");
}

#[test]
fn an_end_that_the_inspect_told_first_counts_once() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create), event("a", "web", 1001, Action::Start)]);
    let json = br#"{"Id":"a","RestartCount":0,"State":{"Status":"exited","ExitCode":2,
        "StartedAt":"1970-01-01T00:00:01.0Z","FinishedAt":"1970-01-01T00:01:00Z"}}"#;
    tick(&mut table, &list_of(&[("a", "web", "exited", "Exited (2) 1 second ago")]), 70_000);
    assert_eq!(table.inspected("a", &parse_object(json).unwrap(), ms(70_000)), Told::Missed);
    table.apply(&event("a", "web", 60_001, died(2)), ms(70_500));
    let told = [table.everything(ms(80_000))];
    assert_eq!(numbers(&told, &["container_exits_total", "class=\"error\""]), [(80_000, 1.0)]);
    assert_eq!(numbers(&told, &["container_last_run_seconds"]), [(80_000, 59.0)]);
    assert_eq!(numbers(&told, &["container_last_exit_code"]), [(80_000, 2.0)]);
}

#[test]
fn an_inspect_fresher_than_the_tick_waits_for_its_events() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create)]);
    let json = br#"{"Id":"a","State":{"Status":"running","StartedAt":"1970-01-01T00:00:09.9Z"}}"#;
    assert_eq!(table.inspected("a", &parse_object(json).unwrap(), ms(10_000)), Told::Known);
    assert_eq!(numbers(&[table.everything(ms(10_000))], &["container_starts_total"]), [(10_000, 0.0)]);
}

#[test]
fn what_was_before_the_first_look_is_not_counted() {
    let mut table = table();
    tick(&mut table, &list_of(&[("a", "web", "exited", "Exited (137) 2 days ago")]), 1_000_000);
    let json = br#"{"Id":"a","RestartCount":7,"State":{"Status":"exited","ExitCode":137,"OOMKilled":true,
        "StartedAt":"1970-01-01T00:00:01Z","FinishedAt":"1970-01-01T00:00:11Z"}}"#;
    table.inspected("a", &parse_object(json).unwrap(), ms(1_000_000));
    let told = [table.everything(ms(1_000_000))];
    assert_eq!(numbers(&told, &["container_exits_total", "class=\"oom\""]), [(1_000_000, 0.0)]);
    assert_eq!(numbers(&told, &["container_starts_total"]), [(1_000_000, 0.0)]);
    assert_eq!(numbers(&told, &["container_restarts_total"]), [(1_000_000, 0.0)]);
    assert_eq!(numbers(&told, &["container_restart_count"]), [(1_000_000, 7.0)]);
    assert_eq!(numbers(&told, &["container_last_run_seconds"]), [(1_000_000, 10.0)]);
    assert_eq!(numbers(&told, &["container_finish_time_seconds"]), [(1_000_000, 11.0)]);
}

#[test]
fn what_is_not_known_is_absent_and_never_zero() {
    let mut table = table();
    let (told, _) = tick(&mut table, &list_of(&[("a", "web", "sleeping", "")]), 1000);
    let told = [told];
    for family in [
        "container_info",
        "container_state{",
        "container_health{",
        "container_restart_count",
        "container_last_exit_code",
        "container_start_time_seconds",
        "container_health_failing_streak",
    ] {
        assert!(history(&told, &[family]).is_empty(), "{family}");
    }
    let zero = br#"{"Id":"a","State":{"StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}}"#;
    table.inspected("a", &parse_object(zero).unwrap(), ms(1000));
    let told = [table.everything(ms(2000))];
    assert!(history(&told, &["container_start_time_seconds"]).is_empty());
    assert!(history(&told, &["container_finish_time_seconds"]).is_empty());
}

#[test]
fn a_rename_ends_the_old_series_and_carries_the_counters_over() {
    let mut table = table();
    play(&mut table, &[event("a", "old", 1000, Action::Create), event("a", "old", 1001, Action::Start)]);
    let told = play(&mut table, &[event("a", "new", 2000, Action::Rename)]);
    assert_eq!(history(&told, &["container_state{", "\"old\""]), [(2000, Value::STALE)]);
    assert_eq!(numbers(&told, &["container_state{", "\"new\""]), [(2000, 1.0)]);
    assert_eq!(numbers(&told, &["container_starts_total", "\"new\""]), [(2000, 1.0)]);
}

#[test]
fn a_container_made_anew_under_its_name_continues_the_counters() {
    let mut table = table();
    let told = play(
        &mut table,
        &[
            event("a", "web", 1000, Action::Create),
            event("a", "web", 1001, Action::Start),
            event("a", "web", 2000, died(1)),
            event("a", "web", 2001, Action::Destroy),
            event("b", "web", 2001, Action::Create),
            event("b", "web", 2002, Action::Start),
        ],
    );
    let starts = numbers(&told, &["container_starts_total"]);
    assert_eq!(starts, [(1000, 0.0), (1001, 1.0), (2002, 1.0), (2003, 2.0)]);
    let code = history(&told, &["container_last_exit_code"]);
    assert_eq!(code, [(2000, Value::new(1.0)), (2001, Value::STALE)], "the new one has no exit yet");
}

#[test]
fn a_name_taken_over_unseen_ends_nothing_that_lives_on() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create), event("a", "web", 1001, Action::Start)]);
    let told = play(&mut table, &[event("b", "web", 2000, Action::Create)]);
    assert_eq!(history(&told, &["container_state{"]), [(2000, Value::new(3.0))]);
    assert_eq!(history(&told, &["container_start_time_seconds"]), [(2000, Value::STALE)]);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_late_event_is_stamped_after_what_was_told_and_counted() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create)]);
    table.everything(ms(5000));
    let told = play(&mut table, &[event("a", "web", 4000, Action::Start)]);
    assert_eq!(numbers(&told, &["container_state{"]), [(5001, 1.0)]);
    assert_eq!(numbers(&told, &["container_start_time_seconds"]), [(5001, 4.0)], "what it says is still true");
    assert_eq!(table.take_notes().late, 1);
}

#[test]
fn an_engine_whose_clock_is_ahead_is_heard_when_it_speaks() {
    let mut table = table();
    let told = table.apply(&event("a", "web", 9000, Action::Create), ms(2000)).unwrap();
    assert_eq!(told.at, ms(2000));
    assert!(table.belongs_before(&event("b", "db", 2500, Action::Create), ms(3000)));
    assert!(!table.belongs_before(&event("b", "db", 3001, Action::Create), ms(3000)));
}

#[test]
fn excluded_containers_are_not_told_and_one_that_becomes_excluded_ends() {
    let exclude = Filter { names: vec![Pattern(regex::Regex::new("^tmp-.*$").unwrap())], ..Filter::default() };
    let mut table = table_with(choice(exclude), None);
    assert!(play(&mut table, &[event("a", "tmp-1", 1000, Action::Create)]).is_empty());
    tick(&mut table, &list_of(&[("a", "tmp-1", "running", "Up 1 second")]), 2000);
    assert_eq!(table.len(), 0);
    play(&mut table, &[event("b", "web", 3000, Action::Create)]);
    let told = play(&mut table, &[event("b", "tmp-2", 4000, Action::Rename)]);
    assert_eq!(history(&told, &["container_state{"]), [(4000, Value::STALE)]);
    assert_eq!(table.len(), 0);
}

#[test]
fn too_many_containers_are_left_out_and_counted() {
    let mut table = table();
    for number in 0..i64::try_from(MAX_CONTAINERS).unwrap() + 2 {
        table.apply(&event(&number.to_string(), &format!("c{number}"), 1000 + number, Action::Create), ms(100_000));
    }
    assert_eq!((table.len(), table.take_notes().containers_refused), (MAX_CONTAINERS, 2));
}

#[test]
fn a_successor_goes_on_where_its_predecessor_was() {
    let all = recorded(EVENTS);
    let mut whole = table();
    play(&mut whole, &all);
    let end = all.last().unwrap().at();
    let expected = whole.everything(end.plus(INTERVAL));

    for cut in [1, 5, 20, 40] {
        let mut first = table();
        play(&mut first, &all[..cut]);
        let blob = persist::write(&first, "host-1", 7);
        let recorded_until = all[cut - 1].at();
        let mut second = table_with(choice(Filter::default()), Some(recorded_until));
        Stored::read(&blob).unwrap().restore(&mut second);
        let since = all[cut - 1].at_nanos - 2_000_000_000;
        let replay: Vec<Event> = all.iter().filter(|event| event.at_nanos >= since).cloned().collect();
        let told = play(&mut second, &replay);
        assert!(told.iter().all(|observation| observation.at > recorded_until), "nothing is told twice");
        assert_eq!(second.everything(end.plus(INTERVAL)), expected, "cut after {cut} events");
    }
}

#[test]
fn what_is_in_the_buffer_already_is_applied_and_not_told_again() {
    let all = recorded(EVENTS);
    let mut table = table_with(choice(Filter::default()), Some(all.last().unwrap().at()));
    assert!(play(&mut table, &all).is_empty());
    let short = numbers(&[table.everything(ms(2_000_000_000_000))], &["container_runs_total", "outcome=\"ok\""]);
    assert_eq!(short[0].1, 1.0);
}

#[test]
fn a_container_that_vanished_while_outhaul_was_down_ends_at_the_first_tick() {
    let mut first = table();
    play(&mut first, &[event("a", "web", 1000, Action::Create), event("a", "web", 1001, Action::Start)]);
    let before = first.everything(ms(2000));
    let blob = persist::write(&first, "host-1", 7);
    let mut second = table_with(choice(Filter::default()), Some(ms(2000)));
    Stored::read(&blob).unwrap().restore(&mut second);
    let (told, missed) = tick(&mut second, &list("[]"), 10_000);
    let stale: BTreeSet<String> = told.samples.iter().map(|sample| sample.series.labels().to_string()).collect();
    let told_before: BTreeSet<String> = before.samples.iter().map(|s| s.series.labels().to_string()).collect();
    assert!(told.samples.iter().all(|sample| sample.value.is_stale()));
    assert_eq!((stale, missed), (told_before, 0));
}

#[test]
fn a_blob_that_is_none_of_ours_reads_as_none() {
    let blob = persist::write(&table(), "h", 7);
    assert!(Stored::read(&blob).is_some());
    for odd in [&b""[..], b"{}", b"[1]", b"\xff", &blob[..blob.len() - 1]] {
        assert!(Stored::read(odd).is_none());
    }
    let other = String::from_utf8(blob).unwrap().replace("\"version\":1", "\"version\":2");
    assert!(Stored::read(other.as_bytes()).is_none());
}

#[test]
fn a_list_of_api_1_52_tells_health_and_streak_of_what_runs() {
    let mut table = table();
    let (told, _) = tick(&mut table, &List::parse(fixture!("list-1.52.json")).unwrap(), 1000);
    let told = [told];
    assert_eq!(numbers(&told, &["container_health{", "\"web\""]), [(1000, 2.0)]);
    assert_eq!(numbers(&told, &["container_health_failing_streak", "\"web\""]), [(1000, 4.0)]);
    assert!(history(&told, &["container_health_failing_streak", "\"plain\""]).is_empty());
    assert!(history(&told, &["container_health{", "\"ended\""]).is_empty(), "its stored verdict means nothing");
}

#[test]
fn podman_is_understood() {
    let mut table = table();
    let (told, _) = tick(&mut table, &List::parse(fixture!("podman-list.json")).unwrap(), 1_795_229_110_000);
    let told = [told];
    let state = |name: &str| numbers(&told, &["container_state{", name])[0].1;
    assert_eq!([state("\"pod-web\""), state("\"pod-old\""), state("\"pod-new\"")], [1.0, 0.0, 3.0]);
    assert!(history(&told, &["container_health{", "pod-web"]).is_empty(), "its Status text never tells");

    table.inspected("7c1d", &parse_object(fixture!("podman-inspect.json")).unwrap(), ms(1_795_229_110_000));
    let told = [table.everything(ms(1_795_229_111_000))];
    assert_eq!(numbers(&told, &["container_health{", "pod-web"])[0].1, 0.0);
    assert_eq!(numbers(&told, &["container_start_time_seconds", "pod-web"])[0].1, 1_795_229_100.3);

    let events = recorded(fixture!("podman-events.jsonl"));
    let told: Vec<_> = events[2..].iter().filter_map(|event| table.apply(event, ms(1_795_229_112_000))).collect();
    assert_eq!(numbers(&told, &["container_exits_total", "class=\"oom\""])[0].1, 1.0);
    assert!(told.last().unwrap().samples.iter().all(|sample| sample.value.is_stale()));
}

#[test]
fn container_info_carries_the_configured_labels_and_changes_with_them() {
    let mut table = table();
    play(&mut table, &[event("a", "web", 1000, Action::Create)]);
    let json = |monitor: &str| {
        format!(
            r#"{{"Id":"a","Image":"sha256:9","Config":{{"Image":"img:1","Labels":{{"monitor":"{monitor}","other":"x"}}}},
            "HostConfig":{{"Runtime":"runc","RestartPolicy":{{"Name":"on-failure","MaximumRetryCount":3}}}}}}"#
        )
    };
    table.inspected("a", &parse_object(json("yes").as_bytes()).unwrap(), ms(5000));
    let told = table.everything(ms(5000));
    let info = told.samples.iter().find(|sample| sample.series.labels().metric_name() == "container_info").unwrap();
    assert_eq!(
        info.series.labels().to_string(),
        "container_info{container_label_monitor=\"yes\",id=\"a\",image=\"img:1\",image_id=\"sha256:9\",\
         instance=\"host-1\",job=\"outhaul\",name=\"web\",restart_policy=\"on-failure:3\",runtime=\"runc\"}"
    );
    table.inspected("a", &parse_object(json("no").as_bytes()).unwrap(), ms(6000));
    let told = [table.everything(ms(6000))];
    assert_eq!(history(&told, &["container_info", "\"yes\""]), [(6000, Value::STALE)]);
    assert_eq!(numbers(&told, &["container_info", "\"no\""]), [(6000, 1.0)]);
}
