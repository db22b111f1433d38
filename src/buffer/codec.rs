//! Snapshots as bytes and back, exactly: every value is its 64 bits, whatever they are.
//!
//! A segment defines each series once, with the value it had then as its *base*, and snapshots refer to it by number
//! (`definitions`). Now and then a *frame* gives all series newer bases (`frames`). Both stand in definition records, which
//! the log writes twice, before and after the snapshot that first needs them. A value is stored against its base (`value`),
//! never against another snapshot's, so one damaged record costs at most one snapshot, and an unchanged value costs a part
//! of a bit.
//!
//! The payload of a definition record begins with the number of a frame (2 and on), with 0 for definitions of series, or with
//! 1 for series that were defined before and began anew, which need that earlier definition. That of a snapshot:
//! the number of the frame it is written against, or 0 for the definitions; how many samples; the series' numbers as runs
//! of consecutive ones, each the zigzag distance of its first number from where the run before ended and its length; how
//! many bytes of decisions follow, the decisions (`range`, `model`), and the bits that nobody could foretell, of which the
//! last byte is filled up with zeros. Numbers are LEB128.
//!
//! Decoding believes nothing: no series stands twice in a snapshot, so there are no more samples than series, and whatever
//! else is counted is compared with the bytes that are left before anything is allocated for it.

mod bits;
mod definitions;
mod dictionary;
mod extras;
mod frames;
mod input;
mod model;
mod range;
mod value;

use std::cell::RefCell;
use std::sync::Arc;

use crate::model::{Interner, Sample, Snapshot, Timestamp};

use self::definitions::Definition;
use self::frames::Frames;
use self::input::{Input, unzigzag};
use self::value::Source;
use super::record::Kind;

pub(super) use self::dictionary::{Dictionary, TooLarge};
pub(super) use self::input::Damage;

/// The series of a segment that is being read, by number, and its frames.
#[derive(Default)]
pub(super) struct Definitions {
    series: Vec<Option<Definition>>,
    frames: RefCell<Frames>,
}

impl Definitions {
    /// Adds what a definition record holds.
    ///
    /// # Errors
    /// [`Damage`]; series before the damaged place are known.
    pub(super) fn read(&mut self, payload: &[u8], interner: &mut Interner) -> Result<(), Damage> {
        let mut input = Input(payload);
        let frame = u32::try_from(input.varint()?).map_err(|_| Damage)?;
        match frame {
            definitions::WHOLE => {}
            definitions::AGAIN => return definitions::read_again(input, &mut self.series),
            frame => {
                self.frames.get_mut().keep(frame, input.0);
                return Ok(());
            }
        }
        definitions::read(input, interner, |number, definition| {
            if self.series.len() <= number {
                self.series.resize(number + 1, None);
            }
            self.series[number].get_or_insert(definition);
        })
    }

    /// The snapshot of `at` in `payload`.
    ///
    /// # Errors
    /// [`Damage`] when the bytes are not a snapshot, or it names a series or a frame that is lost.
    pub(super) fn decode(&self, kind: Kind, at: Timestamp, payload: &[u8]) -> Result<Snapshot, Damage> {
        let mut input = Input(payload);
        if kind != Kind::RichSnapshot {
            return self.decode_values(at, input);
        }
        let len = input.count_of(1)?;
        let mut snapshot = self.decode_values(at, Input(input.bytes(len)?))?;
        // Series that only histograms have are not shared with other records.
        extras::read(&mut input, &mut Interner::default(), &mut snapshot)?;
        Ok(snapshot)
    }

    fn decode_values(&self, at: Timestamp, mut input: Input<'_>) -> Result<Snapshot, Damage> {
        let frame = u32::try_from(input.varint()?).map_err(|_| Damage)?;
        let runs = self.read_runs(&mut input)?;
        let mut frames = self.frames.borrow_mut();
        let bases = frames.unfold(frame, &self.series)?;
        let mut source = Source::new(input)?;
        let mut samples = Vec::with_capacity(runs.iter().map(ExactSizeIterator::len).sum());
        for number in runs.into_iter().flatten() {
            let definition = self.series[number].as_ref().ok_or(Damage)?;
            let base = bases.get(number).unwrap_or(&definition.base);
            let value = base.decode(definition.slot, base.differs_from(&definition.base), &mut source)?;
            samples.push(Sample { series: Arc::clone(&definition.series), value, start: definition.start });
        }
        source.check_end()?;
        Ok(Snapshot::new(at, samples))
    }

    /// The series of a snapshot, as ranges of numbers that are all below `self.series.len()`.
    fn read_runs(&self, input: &mut Input<'_>) -> Result<Vec<std::ops::Range<usize>>, Damage> {
        let many = input.count(self.series.len())?;
        let mut runs = Vec::new();
        let (mut expected, mut left) = (0_i64, many);
        while left > 0 {
            let first = expected.checked_add(unzigzag(input.varint()?)).ok_or(Damage)?;
            let first = usize::try_from(first).map_err(|_| Damage)?;
            let len = input.count(left)?;
            let end = first.checked_add(len).filter(|end| *end <= self.series.len()).ok_or(Damage)?;
            if len == 0 {
                return Err(Damage);
            }
            runs.push(first..end);
            left -= len;
            expected = i64::try_from(end).map_err(|_| Damage)?;
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests;
