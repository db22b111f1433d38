//! The cheapest way through a segment, in bytes, from what can be copied at each of its positions.
//!
//! From the last position back to the first: what the rest costs from there on is a literal and the rest behind it, or a
//! copy and the rest behind that, whichever is less. Of each kind of copy only the longest is asked for: shorter ones, which
//! are as dear, would save one byte in a thousand. A run of literals has a tag, so what a literal costs depends on whether
//! one stands before it; both are reckoned. The second byte that a tag takes from 61 literals on is left out of the
//! reckoning, which can never make it prefer literals by more than that byte.

use super::finder::Found;
use super::{FAR_COPY_BYTES, FAR_LEN_MAX, NEAR_COPY_BYTES, NEAR_LEN_MAX, NEAR_LEN_MIN, SEGMENT_BYTES};

/// What stands next in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The byte itself.
    Literal,
    /// A copy of what is `offset` bytes before.
    Copy { len: u8, offset: u16 },
}

/// What to do at a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Choice {
    /// How many bytes to copy; 0 for a literal.
    copy_len: u8,
    /// Whether a literal is cheaper than the copy where one stands before, so that it takes no tag.
    goes_on: bool,
}

/// See the module.
pub(super) struct Parser {
    /// By position: what the rest of the segment costs, in bytes. One more for its end.
    costs: Vec<u16>,
    choices: Vec<Choice>,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self { costs: vec![0; SEGMENT_BYTES + 1], choices: vec![Choice::default(); SEGMENT_BYTES] }
    }

    /// Finds the way through a segment of at most [`SEGMENT_BYTES`].
    pub(super) fn parse(&mut self, found: &[Found]) {
        self.costs[found.len()] = 0;
        // What the rest costs where the byte before is a literal.
        let mut cost_in_run = 0;
        let end = found.len();
        for (at, found) in found.iter().enumerate().rev() {
            let (copy_len, copy_cost) = cheapest_copy(*found, &self.costs[at + 1..=end]);
            let literal_in_run = cost_in_run + 1;
            let literal = literal_in_run + 1;
            self.costs[at] = literal.min(copy_cost);
            cost_in_run = literal_in_run.min(copy_cost);
            let copy_len = if literal < copy_cost { 0 } else { copy_len };
            self.choices[at] = Choice { copy_len, goes_on: literal_in_run < copy_cost };
        }
    }

    /// The way that was found.
    pub(super) fn pieces<'a>(&'a self, found: &'a [Found]) -> impl Iterator<Item = Piece> + 'a {
        let mut at = 0;
        let mut in_run = false;
        std::iter::from_fn(move || {
            let (found, choice) = (found.get(at)?, self.choices[at]);
            in_run = choice.copy_len == 0 || (in_run && choice.goes_on);
            if in_run {
                at += 1;
                return Some(Piece::Literal);
            }
            at += usize::from(choice.copy_len);
            let source = if choice.copy_len <= near_len(*found) { found.near } else { found.far };
            Some(Piece::Copy { len: choice.copy_len, offset: source.offset })
        })
    }
}

/// The copy after which the rest is cheapest, and what both cost. `rests` is what the rest costs after one byte, two, and
/// so on to the end of the segment, which no copy may pass.
fn cheapest_copy(found: Found, rests: &[u16]) -> (u8, u16) {
    let room = u8::try_from(rests.len()).unwrap_or(u8::MAX);
    let (near, far) = (near_len(found).min(room), found.far.len.min(FAR_LEN_MAX).min(room));
    let cost = |len: u8, bytes: u16| rests[usize::from(len) - 1] + bytes;
    let mut cheapest = (0, u16::MAX);
    if near >= NEAR_LEN_MIN {
        cheapest = (near, cost(near, NEAR_COPY_BYTES));
    }
    if far > near {
        let cost = cost(far, FAR_COPY_BYTES);
        if cost < cheapest.1 {
            cheapest = (far, cost);
        }
    }
    cheapest
}

/// How much can be copied from near; 0 where it is too little.
fn near_len(found: Found) -> u8 {
    if found.near.len < NEAR_LEN_MIN { 0 } else { found.near.len.min(NEAR_LEN_MAX) }
}
