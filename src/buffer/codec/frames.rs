//! Frames: values of all series that later snapshots are compared with, so that what once changed is not told for ever.
//!
//! A frame tells each value against the series' definition, never against another frame, and stands in definition records:
//! twice, like all that others depend on. A snapshot names the frame it is written against. Frames are kept as they were
//! read and unfolded when a snapshot needs one, so memory holds the values of one frame.

use std::collections::HashMap;

use super::definitions::{Definition, SERIES_MAX};
use super::dictionary::Defined;
use super::input::{Damage, Input, put};
use super::value::{Base, Output, Source};

/// When a new frame pays: its two copies cost less than what the snapshots since the last one could have saved.
#[derive(Default)]
pub(super) struct Pace {
    /// Snapshots of most series since the last frame.
    seen: usize,
    /// Bytes of the second of them. The first one holds the frame's very values; the second shows what one step takes.
    one_step: usize,
    /// Bytes beyond that, of all of them.
    saving: usize,
    /// Bytes of the last frame's two copies.
    cost: usize,
    due: bool,
}

impl Pace {
    /// A frame is due at once.
    pub(super) fn overdue() -> Self {
        Self { due: true, ..Self::default() }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// A frame of `len` bytes was made.
    pub(super) fn frame(&mut self, len: usize) {
        *self = Self { cost: 2 * len, ..Self::default() };
    }

    /// A snapshot of most series took `len` bytes.
    pub(super) fn snapshot(&mut self, len: usize) {
        self.seen += 1;
        match self.seen {
            1 => {}
            2 => self.one_step = len,
            _ => self.saving += len.saturating_sub(self.one_step),
        }
        self.due |= self.saving > self.cost.max(2 * len);
    }
}

/// The payload of the frame `number`, made of the latest values; these are what `defined` holds afterwards.
pub(super) fn encode(number: u32, defined: &mut [Defined]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, u64::from(number));
    put(&mut out, defined.len() as u64);
    let mut values = Output::new();
    for one in defined {
        one.base.encode(one.latest, one.slot, false, &mut values);
        one.framed = one.base.moved_to(one.latest);
    }
    values.finish(&mut out);
    out
}

/// The frames of a segment that is being read.
#[derive(Default)]
pub(super) struct Frames {
    /// By number: how many series, and then their values as they were written.
    payloads: HashMap<u32, Box<[u8]>>,
    unfolded: Option<(u32, Vec<Base>)>,
}

impl Frames {
    /// Keeps the frame `number`; `payload` is what follows the number.
    pub(super) fn keep(&mut self, number: u32, payload: &[u8]) {
        self.payloads.entry(number).or_insert_with(|| payload.into());
    }

    /// The values of the frame `number`; none for 0, which stands for the definitions.
    pub(super) fn unfold(&mut self, number: u32, definitions: &[Option<Definition>]) -> Result<&[Base], Damage> {
        if number == 0 {
            return Ok(&[]);
        }
        if self.unfolded.as_ref().is_none_or(|(known, _)| *known != number) {
            let payload = self.payloads.get(&number).ok_or(Damage)?;
            self.unfolded = Some((number, decode(payload, definitions)?));
        }
        Ok(self.unfolded.as_ref().map_or(&[], |(_, values)| values))
    }
}

fn decode(payload: &[u8], definitions: &[Option<Definition>]) -> Result<Vec<Base>, Damage> {
    let mut input = Input(payload);
    let many = input.count(SERIES_MAX)?;
    let definitions = definitions.get(..many).ok_or(Damage)?;
    let mut source = Source::new(input)?;
    let mut values = Vec::with_capacity(many);
    for definition in definitions {
        let definition = definition.as_ref().ok_or(Damage)?;
        values.push(definition.base.moved_to(definition.base.decode(definition.slot, false, &mut source)?));
    }
    source.check_end()?;
    Ok(values)
}
