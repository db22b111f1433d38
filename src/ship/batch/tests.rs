//! Every cut has everything once, in order, within bounds.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{HistogramParts, Labels, Metadata, MetricKind, NativeHistogram, Value};

const EVERYTHING: Wanted = Wanted { exemplars: true, native_histograms: true };

/// A snapshot of the series with these numbers at each second.
fn snapshots(of: &[Vec<u8>]) -> Vec<Snapshot> {
    let metadata = Arc::new(Metadata::of("a", MetricKind::Gauge, ""));
    let series: Vec<Arc<Series>> = (0..=u8::MAX)
        .map(|number| {
            let labels = Labels::builder().with("__name__", "a").with("n", number.to_string()).build().unwrap();
            Arc::new(Series::new(labels, Arc::clone(&metadata)))
        })
        .collect();
    let sample = |number: &u8| Sample::new(Arc::clone(&series[usize::from(*number)]), Value::new(f64::from(*number)));
    let at = |second: usize| Timestamp::from_millis(second as i64 * 1000);
    of.iter()
        .enumerate()
        .map(|(second, numbers)| Snapshot::new(at(second), numbers.iter().map(sample).collect()))
        .collect()
}

fn batch(of: &[Vec<u8>]) -> Batch {
    Batch::new(snapshots(of), EVERYTHING, &mut Encoder::new(Labels::empty(), None)).0
}

/// Everything in order of sending: series, second.
fn sent(batch: &Batch, extents: &[Extent]) -> Vec<(u8, i64)> {
    let parts = extents.iter().flat_map(|extent| batch.parts(extent));
    let all = parts
        .flat_map(|part| part.samples.iter().map(move |sample| (sample.value.number() as u8, part.at.millis() / 1000)));
    all.collect()
}

#[test]
fn a_request_carries_all_instants_of_some_series() {
    let batch = batch(&[vec![1, 2, 3], vec![1, 2, 3], vec![3, 2, 1]]);
    let cut = batch.cut(&batch.whole(), 6);
    assert_eq!(cut.iter().map(|extent| batch.count(extent)).collect::<Vec<_>>(), [6, 3]);
    assert_eq!(sent(&batch, &cut[..1]), [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]);
}

#[test]
fn a_series_with_more_than_a_request_is_cut_in_time() {
    let batch = batch(&[vec![1, 2], vec![1], vec![1], vec![1, 2]]);
    let cut = batch.cut(&batch.whole(), 3);
    assert_eq!(sent(&batch, &cut), [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 3)]);
    assert_eq!(cut.len(), 3);
}

#[test]
fn what_relabelling_drops_is_counted_and_what_it_joins_is_one_series() {
    let relabel = |labels: &Labels| match labels.get("n") {
        Some("1") => None,
        _ => Some(Labels::builder().with("__name__", "a").build_lossy()),
    };
    let mut encoder = Encoder::new(Labels::empty(), Some(Box::new(relabel)));
    let (batch, left_out) = Batch::new(snapshots(&[vec![1, 2], vec![3], vec![2]]), EVERYTHING, &mut encoder);
    assert_eq!(left_out.relabelled_away, Tally { samples: 1, ..Tally::default() });
    let cut = batch.cut(&batch.whole(), 1);
    assert_eq!(
        sent(&batch, &cut),
        [(2, 0), (3, 1), (2, 2)],
        "in order of time, because it is one series to the receiver"
    );
}

#[test]
fn exemplars_of_an_instant_without_samples_are_counted() {
    let mut all = snapshots(&[vec![1], vec![1]]);
    let (sample, at) = (all[1].samples.remove(0), all[1].at);
    all[1].exemplars = vec![Exemplar { series: sample.series, labels: Labels::empty(), value: sample.value, at }];
    let (_, left_out) = Batch::new(all, EVERYTHING, &mut Encoder::new(Labels::empty(), None));
    assert_eq!(left_out, LeftOut { unattached: 1, ..LeftOut::default() });
}

#[test]
fn exemplars_go_with_their_series_and_histograms_are_cut_like_samples() {
    let mut all = snapshots(&[vec![1, 2], vec![1, 2, 3]]);
    let of = |number: usize| Arc::clone(&all[1].samples[number].series);
    let exemplar = |series| Exemplar { series, labels: Labels::empty(), value: Value::new(1.0), at: all[1].at };
    let histogram = HistogramParts::integer(0, 0, 0.0);
    let exemplars = vec![exemplar(of(0)), exemplar(of(2)), exemplar(unheard_of())];
    let histograms = vec![HistogramSample {
        series: of(2),
        histogram: Arc::new(NativeHistogram::new(histogram).unwrap()),
        start: None,
    }];
    all[1].samples.pop();
    (all[1].exemplars, all[1].histograms) = (exemplars, histograms);
    let mut encoder = Encoder::new(Labels::empty(), None);
    let (batch, left_out) = Batch::new(all.clone(), EVERYTHING, &mut encoder);
    assert_eq!(left_out, LeftOut { unattached: 1, ..LeftOut::default() });
    let tally = |samples, histograms, exemplars| Tally { samples, histograms, exemplars };
    let tallies =
        |max| -> Vec<Tally> { batch.cut(&batch.whole(), max).iter().map(|extent| batch.tally(extent)).collect() };
    assert_eq!(tallies(4), [tally(4, 0, 1), tally(0, 1, 1)]);
    assert_eq!(tallies(2), [tally(2, 0, 1), tally(2, 0, 0), tally(0, 1, 1)]);
    let histogram = &batch.cut(&batch.whole(), 4)[1];
    assert_eq!(
        (batch.last_at(histogram), batch.first_of(histogram)),
        (Some(all[1].at), Some(&all[1].histograms[0].series))
    );
    let kept = batch.snapshots(histogram);
    assert_eq!(
        (kept.len(), &kept[0].histograms, &kept[0].exemplars),
        (1, &all[1].histograms, &all[1].exemplars[1..2].to_vec())
    );

    let (batch, left_out) = Batch::new(all, Wanted::default(), &mut encoder);
    assert_eq!(left_out, LeftOut { unwanted: tally(0, 1, 3), ..LeftOut::default() });
    assert_eq!(batch.tally(&batch.whole()), tally(4, 0, 0));
}

fn unheard_of() -> Arc<Series> {
    let labels = Labels::builder().with("__name__", "elsewhere").build().unwrap();
    Arc::new(Series::new(labels, Arc::new(Metadata::of("elsewhere", MetricKind::Counter, ""))))
}

#[test]
fn old_instants_expire_alone() {
    let batch = batch(&[vec![1, 2], vec![1], vec![1]]);
    let (rest, expired) = batch.expire(batch.whole(), Timestamp::from_millis(1000));
    assert_eq!((expired, batch.count(&rest)), (Tally { samples: 2, ..Tally::default() }, 2));
}

proptest! {
    #[test]
    fn every_cut_has_every_sample_once_within_bounds_and_each_series_in_order(
        rows in proptest::collection::vec(proptest::collection::btree_set(0_u8..12, 0..12), 1..8),
        max in 1_usize..20,
        halvings in 0_usize..6,
    ) {
        let rows: Vec<Vec<u8>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
        let batch = batch(&rows);
        let mut cut = batch.cut(&batch.whole(), max);
        prop_assert_eq!(&cut, &batch.cut(&batch.whole(), max), "the same again");
        for extent in &cut {
            prop_assert!((1..=max).contains(&batch.count(extent)));
        }
        for turn in 0..halvings {
            let Some(index) = (!cut.is_empty()).then(|| turn * 7 % cut.len()) else { break };
            let count = batch.count(&cut[index]);
            let parts: Vec<Extent> = match turn % 3 {
                0 => batch.halves(&cut[index]).map(Vec::from),
                1 => batch.instants(&cut[index]),
                _ => batch.first_series(&cut[index]).map(Vec::from),
            }
            .unwrap_or_else(|| vec![cut[index].clone()]);
            prop_assert!(turn % 3 != 0 || count < 2 || parts.len() == 2, "two samples can be halved");
            prop_assert!(parts.iter().all(|part| batch.count(part) > 0));
            cut.splice(index..=index, parts);
        }
        let sent = sent(&batch, &cut);
        let mut expected: Vec<(u8, i64)> = (0_i64..).zip(&rows).flat_map(|(at, row)| row.iter().map(move |n| (*n, at))).collect();
        for number in 0..12 {
            let of = |all: &[(u8, i64)]| all.iter().filter(|(n, _)| *n == number).copied().collect::<Vec<_>>();
            prop_assert_eq!(of(&sent), of(&expected));
        }
        let mut sorted = sent;
        sorted.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(sorted, expected);
    }
}
