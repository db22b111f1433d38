//! One endpoint's place in the log and the account of what became of its samples.
//!
//! The account always balances: everything between the endpoint's origin and its place is delivered, refused, expired,
//! left out, evicted, corrupt or on loan (`limbo`), and everything after its place is pending or lies in a hole. The log moves the
//! place; nothing here reads or writes.
//!
//! Evicting what is on loan decides nothing yet: those records move behind the place into `limbo`, and the
//! acknowledgement, if it comes, says what they were. If the loan ends without one, they were evicted.

use std::path::PathBuf;
use std::time::Instant;

use crate::model::Timestamp;

use super::pair::Pair;
use super::record::{RESUMABLE_LIMIT, le_u16, le_u32, le_u64};
use super::segment::{Hole, Mark};
use super::status::{Evicted, Fates, Ledger};

/// Why the log gave samples up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Room was needed.
    Size,
    /// They were older than wanted.
    Age,
    /// The disk could not be written and memory was full.
    Memory,
    /// The file system was full, or nearly.
    Disk,
    /// Somebody said so.
    Purged,
}

impl Evicted {
    /// Counts `samples` under `reason`.
    pub(super) fn add(&mut self, reason: Reason, samples: u64) {
        match reason {
            Reason::Size => self.size += samples,
            Reason::Age => self.age += samples,
            Reason::Memory => self.memory += samples,
            Reason::Disk => self.disk += samples,
            Reason::Purged => self.purged += samples,
        }
    }
}

/// What became of an endpoint's samples up to its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) fates: Fates,
    pub(super) corrupt: u64,
    pub(super) evicted: Evicted,
}

/// A record on loan.
#[derive(Clone, Copy, Debug)]
pub(super) struct LentRecord {
    pub(super) after: Mark,
    pub(super) samples: u64,
    pub(super) at: Timestamp,
    /// Where reading goes on after it: a segment's name and an offset; `None` for a record in memory.
    pub(super) next: Option<Spot>,
    /// Why the log itself has given it up meanwhile; it then counts as `limbo`.
    pub(super) given_up: Option<Reason>,
}

/// An offset in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) first: u64,
    pub(super) offset: u64,
}

/// What the last `next` gave out; the first of it may have been given up since.
#[derive(Clone, Debug, Default)]
pub(super) struct Loan {
    pub(super) records: Vec<LentRecord>,
}

impl Loan {
    /// What the log has given up of it, and why.
    pub(super) fn limbo(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.records.iter().map_while(|record| Some((record.given_up?, record.samples)))
    }
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) name: String,
    /// Where its account begins, as the log's running count of samples.
    pub(super) origin: u64,
    /// Everything up to here is accounted for or in limbo.
    pub(super) place: Mark,
    /// Where in a segment the record after `place` is looked for first.
    pub(super) spot: Option<Spot>,
    pub(super) tally: Tally,
    pub(super) loan: Option<Loan>,
    /// The instant of the record after `place`.
    pub(super) oldest_at: Option<Timestamp>,
    /// When it last acknowledged something, in this process.
    pub(super) acked_at: Option<Instant>,
    /// The last position of the loan that was out when the process before ended: the first loan ends there too, so that
    /// a request whose answer was never seen is made again as it was.
    pub(super) resume_through: Option<u64>,
    /// Whether it was not configured for a while: what went meanwhile nobody waited for.
    pub(super) was_away: bool,
    /// Where the cursor is kept.
    pub(super) pair: Pair,
    /// Whether all of this is on record there.
    pub(super) is_saved: bool,
}

/// How many samples an acknowledgement did not account for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// It adds up.
    Balanced,
    /// The fates were fewer or more than what was lent.
    Mismatch { lent: u64, accounted: u64 },
    /// No such record is on loan.
    NotLent,
}

impl Endpoint {
    /// Samples on loan that the log has given up.
    pub(super) fn limbo(&self) -> u64 {
        self.loan.iter().flat_map(Loan::limbo).map(|(_, samples)| samples).sum()
    }

    /// Moves the place to `to`; of the samples passed, `memory` were dropped from memory and `readable` were not lost.
    pub(super) fn pass(&mut self, to: Mark, readable: u64, memory: u64) {
        let passed = to.samples.saturating_sub(self.place.samples);
        let lost = passed.saturating_sub(readable);
        self.tally.evicted.memory += memory.min(lost);
        self.tally.corrupt += lost.saturating_sub(memory);
        self.place = to;
    }

    /// Moves a place before `first`, the oldest that is there, to it; of the samples passed, those `in_memory` were lost
    /// there, and what went while the endpoint was away was dropped on purpose. Returns how many the disk lost or dropped.
    ///
    /// Where nothing is there, what an endpoint that was away has missed reaches to the log's `end`.
    pub(super) fn begin_at(&mut self, first: Option<Mark>, end: Mark, in_memory: &[Hole]) -> u64 {
        let Some(first) = first.or(Some(end).filter(|_| self.was_away)) else { return 0 };
        let gone = first.samples.saturating_sub(self.place.samples);
        if gone == 0 {
            return 0;
        }
        let memory = in_memory.iter().map(|hole| hole.within(self.place.samples, first.samples)).sum();
        let dropped = if self.was_away { gone.saturating_sub(memory) } else { 0 };
        self.tally.evicted.add(Reason::Purged, dropped);
        self.pass(first, dropped, memory);
        gone.saturating_sub(memory)
    }

    /// Makes the loan survive the loss of its records up to `through`. `memory_within` tells how much of a range was dropped
    /// from memory.
    pub(super) fn lift_loan(&mut self, through: u64, reason: Reason, memory_within: impl Fn(Mark, Mark) -> u64) {
        let lent = self.loan.iter_mut().flat_map(|loan| &mut loan.records);
        let (mut readable, mut last) = (0, None);
        for record in lent.filter(|record| record.given_up.is_none()).take_while(|record| record.after.seq <= through) {
            record.given_up = Some(reason);
            readable += record.samples;
            last = Some(*record);
        }
        let Some(last) = last else { return };
        let memory = memory_within(self.place, last.after);
        self.pass(last.after, readable, memory);
        self.spot = last.next;
    }

    /// What the log has given up of the loan will not be answered any more: it was evicted.
    pub(super) fn give_up_limbo(&mut self) {
        let Self { loan: Some(loan), tally, .. } = self else { return };
        loan.limbo().for_each(|(reason, samples)| tally.evicted.add(reason, samples));
        loan.records.retain(|record| record.given_up.is_none());
    }

    /// Settles the loan's records up to `through`.
    pub(super) fn settle(&mut self, through: u64, fates: Fates, memory_within: impl Fn(Mark, Mark) -> u64) -> Acked {
        let Some(loan) = self.loan.as_mut() else { return Acked::NotLent };
        let Some(index) = loan.records.iter().position(|record| record.after.seq == through) else {
            return Acked::NotLent;
        };
        let rest = loan.records.split_off(index + 1);
        let settled = std::mem::replace(&mut loan.records, rest);
        let next_at = loan.records.first().map(|record| record.at);
        if loan.records.is_empty() {
            self.loan = None;
        }
        let lent = settled.iter().map(|record| record.samples).sum();
        let accounted = fates.total();
        self.tally.fates.add(fates.clamped(lent));
        self.tally.corrupt += lent.saturating_sub(accounted);
        let there = || settled.iter().filter(|record| record.given_up.is_none());
        if let Some(last) = there().next_back() {
            let memory = memory_within(self.place, last.after);
            self.pass(last.after, there().map(|record| record.samples).sum(), memory);
            self.spot = last.next;
            self.oldest_at = next_at;
        }
        if lent == accounted { Acked::Balanced } else { Acked::Mismatch { lent, accounted } }
    }

    /// The account; `ahead` is what lies after the place.
    pub(super) fn ledger(&self, end: Mark, ahead: Ahead) -> Ledger {
        let mut evicted = self.tally.evicted;
        evicted.memory += ahead.memory;
        Ledger {
            appended: end.samples.saturating_sub(self.origin),
            delivered: self.tally.fates.delivered,
            refused: self.tally.fates.refused,
            expired: self.tally.fates.expired,
            unchanged: self.tally.fates.unchanged,
            filtered: self.tally.fates.filtered,
            evicted,
            corrupt: self.tally.corrupt + ahead.corrupt,
            pending: ahead.readable + self.limbo(),
        }
    }

    /// What is kept on disk: the account as it must be read if this process ends now.
    pub(super) fn encode(&self, store_id: u128) -> Vec<u8> {
        let mut tally = self.tally;
        self.loan.iter().flat_map(Loan::limbo).for_each(|(reason, samples)| tally.evicted.add(reason, samples));
        let lent = self.loan.iter().flat_map(|loan| &loan.records).rfind(|record| record.given_up.is_none());
        let through = lent.map(|record| record.after.seq).or(self.resume_through).unwrap_or(0);
        let mut out = Vec::with_capacity(Self::FIXED_LEN + self.name.len());
        out.extend_from_slice(&store_id.to_le_bytes());
        let numbers = [
            self.origin,
            self.place.seq,
            self.place.samples,
            through,
            tally.fates.delivered,
            tally.fates.refused,
            tally.fates.expired,
            tally.corrupt,
            tally.evicted.size,
            tally.evicted.age,
            tally.evicted.memory,
            tally.evicted.disk,
            tally.evicted.purged,
            tally.fates.unchanged,
            tally.fates.filtered,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out
    }

    pub(super) const FIXED_LEN: usize = 16 + 15 * 8 + 2;

    /// The endpoint as its cursor says, or one that starts at `fresh` where there is no cursor of this name and store.
    pub(super) fn from_cursor(name: String, pair: Pair, value: Option<&[u8]>, store_id: u128, fresh: Mark) -> Self {
        let mut endpoint = Self {
            name,
            origin: fresh.samples,
            place: fresh,
            spot: None,
            tally: Tally::default(),
            loan: None,
            oldest_at: None,
            acked_at: None,
            resume_through: None,
            was_away: false,
            pair,
            is_saved: false,
        };
        let Some(value) = value.filter(|value| Self::is_cursor_of(value, store_id, &endpoint.name)) else {
            return endpoint;
        };
        let number = |index: usize| le_u64(value, 16 + index * 8);
        let place = Mark { seq: number(1), samples: number(2) };
        let tally = Tally {
            fates: Fates {
                delivered: number(4),
                refused: number(5),
                expired: number(6),
                unchanged: number(13),
                filtered: number(14),
            },
            corrupt: number(7),
            evicted: Evicted {
                size: number(8),
                age: number(9),
                memory: number(10),
                disk: number(11),
                purged: number(12),
            },
        };
        let accounted = (4..=14).try_fold(number(0), |sum, index| sum.checked_add(number(index)));
        // The checksum fits, so only a bug of ours could have written an account that does not balance.
        if accounted == Some(place.samples) && place.seq < RESUMABLE_LIMIT && place.samples < RESUMABLE_LIMIT {
            endpoint.origin = number(0);
            endpoint.place = place;
            endpoint.tally = tally;
            endpoint.was_away = number(3) == AWAY;
            endpoint.resume_through = Some(number(3)).filter(|through| *through > place.seq && *through != AWAY);
        } else {
            tracing::error!(endpoint = %endpoint.name, "BUG: the cursor does not balance; starting at the oldest sample");
        }
        endpoint
    }

    fn is_cursor_of(value: &[u8], store_id: u128, name: &str) -> bool {
        name_in_cursor(value) == Some(name) && value[..16] == store_id.to_le_bytes()
    }
}

/// In the place of the last position on loan: the endpoint is not configured.
const AWAY: u64 = u64::MAX;
/// Where that stands in a cursor.
const THROUGH: std::ops::Range<usize> = 40..48;

/// A cursor's value as that of an endpoint that is configured no more; `None` where it says so already.
pub(super) fn away(value: &[u8]) -> Option<Vec<u8>> {
    name_in_cursor(value)?;
    let mut away = value.to_vec();
    away[THROUGH].copy_from_slice(&AWAY.to_le_bytes());
    (away != value).then_some(away)
}

/// The place a cursor file names, whoever's it is: the log must not reuse positions it has passed.
pub(super) fn place_of_cursor(value: &[u8], store_id: u128) -> Option<Mark> {
    let ours = value.len() >= Endpoint::FIXED_LEN && value[..16] == store_id.to_le_bytes();
    let mark = Mark { seq: ours.then(|| le_u64(value, 24))?, samples: le_u64(value, 32) };
    (mark.seq < RESUMABLE_LIMIT && mark.samples < RESUMABLE_LIMIT).then_some(mark)
}

/// The store that a cursor's value is of.
pub(super) fn store_of_cursor(value: &[u8]) -> Option<u128> {
    name_in_cursor(value)?;
    Some(u128::from(le_u64(value, 0)) | u128::from(le_u64(value, 8)) << 64)
}

/// The endpoint's name in a cursor's value, whatever store it is of.
pub(super) fn name_in_cursor(value: &[u8]) -> Option<&str> {
    let (_, name) = value.split_at_checked(Endpoint::FIXED_LEN)?;
    let fits = usize::from(le_u16(value, Endpoint::FIXED_LEN - 2)) == name.len();
    std::str::from_utf8(name).ok().filter(|_| fits)
}

/// What lies after an endpoint's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) readable: u64,
    pub(super) corrupt: u64,
    pub(super) memory: u64,
}

/// The file an endpoint's cursor is kept in: its name as far as a file may be called so, and a checksum that keeps two
/// names apart that look alike then.
pub(super) fn cursor_path(dir: &std::path::Path, name: &str) -> PathBuf {
    dir.join(format!("cursor-{}", safe_file_name(name)))
}

/// Longest part of a name that stands in a file name readably; with prefix, checksum and suffix far below 255 bytes.
const READABLE_MAX: usize = 64;

/// `name` as part of a file name.
pub(super) fn safe_file_name(name: &str) -> String {
    let readable: String = name
        .chars()
        .take(READABLE_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' })
        .collect();
    // Two different checksums of the same bytes make 64 bits.
    let forward = crc32c::crc32c(name.as_bytes());
    let seeded = crc32c::crc32c_append(le_u32(b"name", 0), format!("{}{name}", name.len()).as_bytes());
    format!("{readable}-{forward:08x}{seeded:08x}")
}
