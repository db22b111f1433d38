//! What can be copied at each position of a message: the longest match among the nearest, and the longest of all.
//!
//! Positions whose next bytes have the same hash are chained, nearest first, and a few links of the chain are followed.
//! What was found at a position holds for the next one, one byte shorter, and a match that turns up late is followed back
//! over the positions before it. Together they find nearly what a search of the whole window would.
//!
//! Invariants: whatever is found is there, within the message and the window; what is found does not depend on the message
//! before; a position costs at most [`CHAIN_LINKS_MAX`] comparisons and [`BACK_BYTES_MAX`] steps back.

use super::{NEAR_LEN_MAX, NEAR_LEN_MIN, NEAR_OFFSET_MAX};

/// How many links of a chain are followed. Twice as many would save one byte in a hundred.
const CHAIN_LINKS_MAX: usize = 4;
/// How many where what is known is [`GOOD_LEN`] long.
const CHAIN_LINKS_MAX_IF_GOOD: usize = 1;
/// Long enough that something longer is seldom worth more.
const GOOD_LEN: u8 = 8;
/// What is so long is taken as it is, and nothing is looked for until it has nearly ended.
const NICE_LEN: u8 = 16;
/// Longer matches are told in pieces of this.
const LEN_MAX: usize = u8::MAX as usize;
/// How far a match that turns up late is followed back.
const BACK_BYTES_MAX: usize = LEN_MAX;
/// How far a copy reaches, and one more: positions are remembered by their low 16 bits.
const WINDOW_BYTES: usize = 1 << 16;
/// 2^14 chains.
const HASH_BITS: u32 = 14;
/// Bytes that are read at once.
const WORD_BYTES: usize = 8;
/// Of these so many are hashed: with four, most chains would be of zeros in numbers.
const HASHED_BYTES: u32 = 5;
/// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The same bytes, `offset` bytes before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Match {
    /// 0 where there is none.
    pub(super) len: u8,
    pub(super) offset: u16,
}

impl Match {
    fn is_near(self) -> bool {
        self.offset <= NEAR_OFFSET_MAX
    }

    /// What it is one position later.
    fn later(self) -> Self {
        Self { len: self.len.saturating_sub(1), ..self }
    }

    /// What it is one position earlier, if it is there.
    fn earlier(self) -> Self {
        Self { len: self.len.saturating_add(1), ..self }
    }
}

/// What can be copied at a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// At most [`NEAR_OFFSET_MAX`] bytes before.
    pub(super) near: Match,
    /// At any distance; no shorter than `near`.
    pub(super) far: Match,
}

impl Found {
    fn consider(&mut self, found: Match) {
        if found.len > self.far.len {
            self.far = found;
        }
        if found.len > self.near.len && found.is_near() {
            self.near = found;
        }
    }

    /// How long a match must be at least to be longer than what is known.
    fn beaten_by(self, offset: u16) -> usize {
        let near_is_full = self.near.len >= NEAR_LEN_MAX;
        usize::from(if offset > NEAR_OFFSET_MAX || near_is_full { self.far.len } else { self.near.len })
    }
}

/// See the module.
pub(super) struct Finder {
    /// By hash: one more than the last position that had it, 0 for none.
    last_with_hash: Vec<u32>,
    /// By position, the low bits of it: how far before it its hash was seen, 0 for not within the window.
    steps: Vec<u16>,
    /// What was found at the last position.
    last: Found,
}

impl Finder {
    pub(super) fn new() -> Self {
        Self { last_with_hash: vec![0; 1 << HASH_BITS], steps: vec![0; WINDOW_BYTES], last: Found::default() }
    }

    /// Forgets the message before. Steps stay, because only chains that begin in this message lead to any; of what was found
    /// last nothing is left, because no match goes beyond its message.
    pub(super) fn begin(&mut self) {
        self.last_with_hash.fill(0);
    }

    /// Finds for the positions from `start` on, which follow those of the call before.
    pub(super) fn find(&mut self, message: &[u8], start: usize, found: &mut [Found]) {
        for index in 0..found.len() {
            let known = Found { near: self.last.near.later(), far: self.last.far.later() };
            let mut best = known;
            if known.far.len < NICE_LEN {
                self.search(message, start + index, &mut best);
                if best.far.len > known.far.len {
                    follow_back(message, start + index, best.far, &mut found[..index]);
                }
            }
            found[index] = best;
            self.last = best;
        }
    }

    /// Follows the chain of `at`, and puts `at` in front of it.
    fn search(&mut self, message: &[u8], at: usize, best: &mut Found) {
        let Some(hash) = hash(message, at) else { return };
        let last = std::mem::replace(&mut self.last_with_hash[hash], u32::try_from(at + 1).unwrap_or(0));
        let mut step = if last == 0 { 0 } else { u16::try_from(at + 1 - last as usize).unwrap_or(0) };
        self.steps[at % WINDOW_BYTES] = step;
        let links = if best.far.len < GOOD_LEN { CHAIN_LINKS_MAX } else { CHAIN_LINKS_MAX_IF_GOOD };
        let mut offset = 0_u16;
        for _ in 0..links {
            let Some(further) = offset.checked_add(step).filter(|_| step > 0) else { return };
            offset = further;
            let from = at - usize::from(offset);
            step = self.steps[from % WINDOW_BYTES];
            let beaten_by = best.beaten_by(offset);
            if message.get(at + beaten_by) != message.get(from + beaten_by) {
                continue;
            }
            let len = common_len(message, from, at);
            if len < NEAR_LEN_MIN {
                continue;
            }
            best.consider(Match { len, offset });
            if len >= NICE_LEN {
                return;
            }
        }
    }
}

/// Where the chain of a position begins; none for the last few of a message.
fn hash(message: &[u8], at: usize) -> Option<usize> {
    let word = message.get(at..)?.first_chunk::<WORD_BYTES>()?;
    let hashed = u64::from_le_bytes(*word) << (u64::BITS - u8::BITS * HASHED_BYTES);
    usize::try_from(hashed.wrapping_mul(MULTIPLIER) >> (u64::BITS - HASH_BITS)).ok()
}

/// Tells the positions before `at`, which `found` ends with, of a match there that begins earlier than it was seen.
fn follow_back(message: &[u8], at: usize, mut late: Match, found: &mut [Found]) {
    let before = found.iter_mut().rev().take(BACK_BYTES_MAX);
    let behind = &message[..at - usize::from(late.offset)];
    for ((found, here), there) in before.zip(message[..at].iter().rev()).zip(behind.iter().rev()) {
        late = late.earlier();
        if here != there || found.far.len >= late.len {
            return;
        }
        found.consider(late);
    }
}

/// How many bytes are the same from both positions on, up to [`LEN_MAX`].
fn common_len(message: &[u8], from: usize, at: usize) -> u8 {
    let here = &message[at..message.len().min(at + LEN_MAX)];
    let there = &message[from..from + here.len()];
    let (words, others) = (here.chunks_exact(WORD_BYTES), there.chunks_exact(WORD_BYTES));
    let rest = words.remainder().iter().zip(others.remainder());
    let mut len = 0;
    for (word, other) in words.zip(others) {
        let differ = number(word) ^ number(other);
        if differ != 0 {
            return small(len + differ.trailing_zeros() as usize / 8);
        }
        len += WORD_BYTES;
    }
    small(len + rest.take_while(|(here, there)| here == there).count())
}

fn number(word: &[u8]) -> u64 {
    u64::from_le_bytes(word.try_into().unwrap_or_default())
}

fn small(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}
