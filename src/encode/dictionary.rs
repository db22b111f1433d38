//! What each series becomes on the wire, found out once per series and remembered from request to request.
//!
//! A series is known by the address of its shared [`Series`], which nothing else can take while it is remembered here
//! (a `Weak` holds the place, not the content). Several addresses may stand for one label set, because the same series was
//! read twice or because relabelling made two one: they share an *identity*, a list of *pairs* of *symbols*.
//!
//! Numbers given out here never reach the wire: what a body holds does not depend on what was encoded before it.
//! Nothing in here grows without bound: see [`SERIES_MAX`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};

use super::{is_portable, v1};
use crate::model::{Label, Labels, Series};

/// What relabelling makes of a label set, external labels included; `None` drops the series.
///
/// It must always give the same answer: it is asked once per series and remembered.
pub type Relabel = Box<dyn Fn(&Labels) -> Option<Labels> + Send>;

/// More series than this are not remembered from one request to the next: everything is forgotten and learnt anew.
const SERIES_MAX: usize = 1 << 20;
/// Below so many there is no point in looking whether some have ended.
const SWEEP_SERIES_MIN: usize = 1024;

/// No slot.
const NONE: u32 = u32::MAX;

/// What a series becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// Relabelling dropped it.
    Nothing,
    /// The identity with this number.
    Identity(u32),
}

/// A series, by address.
#[derive(Debug)]
pub(super) struct Slot {
    /// Keeps the address from being used again.
    place: Weak<Series>,
    address: usize,
    pub(super) becomes: Becomes,
    pub(super) kind: u8,
    /// Symbol.
    pub(super) help: u32,
    /// Symbol.
    pub(super) unit: u32,
    /// The slot that came after this one last time: snapshots list their series in the same order again and again.
    next: u32,
}

/// A label set that is sent.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) pairs: Arc<[u32]>,
    /// Whether remote-write 1.0 can carry its names.
    pub(super) is_portable: bool,
    /// Whether it has a metric name: receivers refuse a series without one.
    pub(super) is_named: bool,
}

/// A label.
#[derive(Debug)]
pub(super) struct Pair {
    /// Symbol.
    pub(super) name: u32,
    /// Symbol.
    pub(super) value: u32,
    /// As a field of remote-write 1.0's `TimeSeries`.
    pub(super) v1: Box<[u8]>,
}

/// See the module.
pub(super) struct Dictionary {
    external: Labels,
    relabel: Option<Relabel>,
    slots: Vec<Slot>,
    by_address: HashMap<usize, u32, BuildHasherDefault<AddressHasher>>,
    identities: Vec<Identity>,
    by_pairs: HashMap<Arc<[u32]>, u32>,
    pairs: Vec<Pair>,
    by_label: HashMap<Label, u32>,
    symbols: Vec<Arc<str>>,
    by_text: HashMap<Arc<str>, u32>,
    /// The slot that was asked for last.
    last: u32,
    sweep_at: usize,
}

impl Dictionary {
    pub(super) fn new(external: Labels, relabel: Option<Relabel>) -> Self {
        Self {
            external,
            relabel,
            slots: Vec::new(),
            by_address: HashMap::default(),
            identities: Vec::new(),
            by_pairs: HashMap::new(),
            pairs: Vec::new(),
            by_label: HashMap::new(),
            symbols: Vec::new(),
            by_text: HashMap::new(),
            last: NONE,
            sweep_at: SWEEP_SERIES_MIN,
        }
    }

    /// The number of the slot of `series`; learns what it does not know.
    pub(super) fn slot(&mut self, series: &Arc<Series>) -> u32 {
        let address = Arc::as_ptr(series).addr();
        let guess = self.slots.get(self.last as usize).map_or(0, |last| last.next);
        let found = if self.slots.get(guess as usize).is_some_and(|slot| slot.address == address) {
            guess
        } else {
            let found = self.by_address.get(&address).copied();
            let found = found.unwrap_or_else(|| self.learn(series, address));
            if let Some(last) = self.slots.get_mut(self.last as usize) {
                last.next = found;
            }
            found
        };
        self.last = found;
        found
    }

    pub(super) fn at_slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize]
    }

    pub(super) fn identity(&self, number: u32) -> &Identity {
        &self.identities[number as usize]
    }

    pub(super) fn pair(&self, number: u32) -> &Pair {
        &self.pairs[number as usize]
    }

    pub(super) fn symbol(&self, number: u32) -> &str {
        &self.symbols[number as usize]
    }

    /// The number of a symbol, if it is one.
    pub(super) fn known_symbol(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// How many numbers there are: identities, pairs, symbols.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.identities.len(), self.pairs.len(), self.symbols.len())
    }

    /// Forgets what has ended once it is at least half of what is remembered; true when numbers are new from here on.
    ///
    /// All is forgotten at once and the living learnt again: no bookkeeping, and seldom enough to cost nothing.
    pub(super) fn sweep(&mut self) -> bool {
        if self.slots.len() < self.sweep_at {
            return false;
        }
        let alive = self.slots.iter().filter(|slot| slot.place.strong_count() > 0).count();
        self.sweep_at = (alive * 2).clamp(SWEEP_SERIES_MIN, SERIES_MAX);
        let forget = self.slots.len() >= self.sweep_at;
        if forget {
            self.forget();
        }
        forget
    }

    fn forget(&mut self) {
        let (external, relabel) = (self.external.clone(), self.relabel.take());
        *self = Self { sweep_at: self.sweep_at, ..Self::new(external, relabel) };
    }

    fn learn(&mut self, series: &Arc<Series>, address: usize) -> u32 {
        let labels = series.labels().with_defaults(&self.external);
        let relabelled = match &self.relabel {
            Some(relabel) => relabel(&labels),
            None => Some(labels),
        };
        let becomes = relabelled.map_or(Becomes::Nothing, |labels| Becomes::Identity(self.learn_identity(&labels)));
        let metadata = series.metadata();
        let (help, unit) = (self.learn_symbol(&*metadata.help), self.learn_symbol(&*metadata.unit));
        let number = number(self.slots.len());
        let place = Arc::downgrade(series);
        self.slots.push(Slot { place, address, becomes, kind: metadata.kind as u8, help, unit, next: number + 1 });
        self.by_address.insert(address, number);
        number
    }

    fn learn_identity(&mut self, labels: &Labels) -> u32 {
        let pairs: Arc<[u32]> = labels.iter().map(|label| self.learn_pair(label)).collect();
        if let Some(&known) = self.by_pairs.get(&pairs) {
            return known;
        }
        let number = number(self.identities.len());
        self.by_pairs.insert(Arc::clone(&pairs), number);
        let is_named = !labels.metric_name().is_empty();
        self.identities.push(Identity { pairs, is_portable: is_portable(labels), is_named });
        number
    }

    fn learn_pair(&mut self, label: &Label) -> u32 {
        if let Some(&known) = self.by_label.get(label) {
            return known;
        }
        let number = number(self.pairs.len());
        let (name, value) = (self.learn_symbol(label.name.clone()), self.learn_symbol(label.value.clone()));
        self.pairs.push(Pair { name, value, v1: v1::label_field(label).into() });
        self.by_label.insert(label.clone(), number);
        number
    }

    fn learn_symbol(&mut self, text: impl AsRef<str> + Into<Arc<str>>) -> u32 {
        if let Some(&known) = self.by_text.get(text.as_ref()) {
            return known;
        }
        let text = text.into();
        let number = number(self.symbols.len());
        self.symbols.push(Arc::clone(&text));
        self.by_text.insert(text, number);
        number
    }
}

/// Four thousand million of anything would not fit into memory.
pub(super) fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or_else(|_| panic!("BUG: more than 2^32 entries in one request or dictionary"))
}

/// Spreads addresses, which nobody outside chooses, over a table; `SipHash` would be most of what a look-up costs.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        /// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        // The table takes its place from the low bits and its tag from the high ones; a product's good bits are high.
        self.0 = (self.0 ^ address as u64).wrapping_mul(MULTIPLIER).rotate_left(32);
    }
}
