//! How much a message may hold, counted before any of it is kept: a few bytes of protobuf can ask for hundreds in memory.

use super::{DecodeError, V1_TIMESERIES, V2_TIMESERIES, each_field};
use crate::encode::Message;

/// The most elements of a message: symbols, series, their samples, and the labels or references of each; what stands in
/// exemplars, histograms and lists counts by the byte. One takes about 50 bytes once it is read, and a series of ten labels
/// is about fifty of them.
pub(super) const ELEMENTS_MAX: usize = 2_000_000;

/// Both messages have the samples of a series here.
const SAMPLES: u32 = 2;
const V1_LABELS: u32 = 1;

/// Refuses a message that would take more memory than one may.
///
/// # Errors
/// When it holds more than [`ELEMENTS_MAX`], or is no message.
pub(super) fn check(bytes: &[u8], message: Message) -> Result<(), DecodeError> {
    let mut elements = 0;
    each_field(bytes, message, |number, field| {
        elements += 1;
        if matches!((message, number), (Message::V1, V1_TIMESERIES) | (Message::V2, V2_TIMESERIES)) {
            elements += of_series(field, message)?;
        }
        within(elements)
    })
}

fn of_series(field: &[u8], message: Message) -> Result<usize, DecodeError> {
    let mut elements = 0;
    each_field(field, message, |number, content| {
        let is_one = number == SAMPLES || (message == Message::V1 && number == V1_LABELS);
        elements += 1 + if is_one { 0 } else { content.len() };
        within(elements)
    })?;
    Ok(elements)
}

fn within(elements: usize) -> Result<(), DecodeError> {
    if elements > ELEMENTS_MAX { Err(DecodeError::TooMany { max: ELEMENTS_MAX }) } else { Ok(()) }
}
