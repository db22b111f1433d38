//! The samples, histograms and exemplars of a request by the series they become, in order of time.
//!
//! Chains of places in the parts rather than lists per series: nothing is allocated for a sample, and the memory is used
//! again for the next request.

use super::Part;
use super::dictionary::number;
use crate::model::{Exemplar, NativeHistogram, Timestamp, Value};

/// The end of a chain.
pub(super) const END: u32 = u32::MAX;
/// How many links are kept for the next request.
const KEPT_LINKS_MAX: usize = 1 << 16;

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sample,
    Histogram,
    Exemplar,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    part: u32,
    index: u32,
    next: u32,
    kind: Kind,
}

/// Where a chain begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    head: u32,
    tail: u32,
    /// When the last of it is.
    last_at: Timestamp,
}

impl Ends {
    pub(super) const EMPTY: Self = Self { head: END, tail: END, last_at: Timestamp::MIN };

    pub(super) fn is_empty(&self) -> bool {
        self.head == END
    }

    /// When the last of it is.
    pub(super) fn last_at(&self) -> Option<Timestamp> {
        (!self.is_empty()).then_some(self.last_at)
    }
}

/// All links of a request.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    pub(super) fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT_LINKS_MAX);
    }

    /// Adds a place to a chain.
    pub(super) fn append(&mut self, ends: &mut Ends, kind: Kind, (part, index): (usize, usize), at: Timestamp) {
        let added = number(self.0.len());
        self.0.push(Link { part: number(part), index: number(index), next: END, kind });
        match self.0.get_mut(ends.tail as usize) {
            Some(tail) => tail.next = added,
            None => ends.head = added,
        }
        ends.tail = added;
        ends.last_at = at;
    }
}

/// A chain to walk, from somewhere on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain<'a> {
    links: &'a [Link],
    parts: &'a [Part<'a>],
    at: u32,
}

impl<'a> Chain<'a> {
    pub(super) fn new(links: &'a Links, parts: &'a [Part<'a>], ends: &Ends) -> Self {
        Self { links: &links.0, parts, at: ends.head }
    }

    /// What comes next, if it is of this kind: its part and its index there.
    fn step(&mut self, kind: Kind) -> Option<(&'a Part<'a>, usize)> {
        let link = self.links.get(self.at as usize).filter(|link| link.kind == kind)?;
        self.at = link.next;
        Some((&self.parts[link.part as usize], link.index as usize))
    }

    /// The kind of what comes next.
    pub(super) fn next_kind(&self) -> Option<Kind> {
        self.links.get(self.at as usize).map(|link| link.kind)
    }

    /// The samples up to what is no sample.
    pub(super) fn samples(self) -> impl Iterator<Item = Point<Value>> + Clone {
        let mut chain = self;
        std::iter::from_fn(move || {
            let (part, index) = chain.step(Kind::Sample)?;
            let sample = &part.samples[index];
            Some(Point { at: part.at, start: sample.start, what: sample.value })
        })
    }

    /// The histograms up to what is no histogram.
    pub(super) fn histograms(self) -> impl Iterator<Item = Point<&'a NativeHistogram>> + Clone {
        let mut chain = self;
        std::iter::from_fn(move || {
            let (part, index) = chain.step(Kind::Histogram)?;
            let sample = &part.histograms[index];
            Some(Point { at: part.at, start: sample.start, what: &*sample.histogram })
        })
    }

    /// The exemplars up to what is no exemplar.
    pub(super) fn exemplars(self) -> impl Iterator<Item = &'a Exemplar> + Clone {
        let mut chain = self;
        std::iter::from_fn(move || {
            let (part, index) = chain.step(Kind::Exemplar)?;
            Some(&part.exemplars[index])
        })
    }

    /// The rest of the chain behind what is of this kind.
    pub(super) fn after(mut self, kind: Kind) -> Self {
        while self.step(kind).is_some() {}
        self
    }
}

/// Something at an instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<T> {
    pub(super) at: Timestamp,
    pub(super) start: Option<Timestamp>,
    pub(super) what: T,
}
