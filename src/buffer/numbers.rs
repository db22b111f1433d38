//! The log's numbers, as whoever watches it is told them. Nothing here changes anything or reads a file.

use std::time::Duration;

use super::Position;
use super::endpoint::{Endpoint, Loan};
use super::fs::Fs;
use super::log::Log;
use super::segment::{FILE_HEADER_LEN, Segment};
use super::status::{EndpointStatus, Status};

impl<F: Fs> Log<F> {
    /// The numbers now.
    pub(super) fn status(&self) -> Status {
        Status {
            used_bytes: self.used_bytes(),
            max_bytes: self.options.max_bytes,
            free_bytes: self.fs.space(&self.options.dir).ok().map(|space| space.free_bytes),
            segments: self.segments.len(),
            newest_segment: self.segments.back().map(|segment| Position(segment.first)),
            tail: (self.end.seq > 0).then_some(Position(self.end.seq)),
            last_at: self.last_at,
            append_errors_total: self.counts.append_errors,
            append_errors_samples_total: self.counts.append_errors_samples,
            io_errors: self.counts.io_errors.list(),
            evicted_segments_total: self.counts.evicted_segments,
            damage_found_total: self.counts.damage_found,
            full_in: self.full_in(),
            short_of_disk: self.short_of_disk,
            open_took: self.open_took,
            quarantine: self.quarantine.status(),
            held_in_memory_samples: self.ring.samples_after(0),
            degraded: !self.ring.is_idle(),
            unclean_start: self.unclean_start,
            torn_tail_bytes: self.counts.torn_tail_bytes,
            syncs: self.counts.syncs,
            endpoints: self.endpoints.iter().map(|endpoint| self.endpoint_status(endpoint)).collect(),
        }
    }

    /// How long the room that is left lasts, at the rate at which the segments that are there were filled.
    fn full_in(&self) -> Option<Duration> {
        let waits = self.endpoints.iter().any(|endpoint| self.records_after(endpoint.place.seq) > 0);
        let (oldest, newest) = (self.segments.front().filter(|_| waits)?.first_at, self.last_at?);
        let bytes: u64 = self.segments.iter().map(|segment| segment.len).sum();
        let left = self.bound_bytes().saturating_sub(self.used_bytes());
        let millis = u128::from(left) * newest.since(oldest).as_millis() / u128::from(bytes.max(1));
        (newest > oldest).then(|| Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn records_after(&self, seq: u64) -> u64 {
        let on_disk: u64 = self.segments.iter().map(|segment| segment.records_after(seq)).sum();
        on_disk + self.ring.records_after(seq) as u64
    }

    fn endpoint_status(&self, endpoint: &Endpoint) -> EndpointStatus {
        let lent = endpoint.loan.as_ref().and_then(|loan| loan.records.first());
        let limbo_records = endpoint.loan.iter().flat_map(Loan::limbo).count();
        let unread = self.segments.iter().find(|segment| segment.end.seq > endpoint.place.seq);
        EndpointStatus {
            name: endpoint.name.clone(),
            segment: unread.or(self.segments.back()).map(|segment| Position(segment.first)),
            ledger: endpoint.ledger(self.end, self.ahead(endpoint.place)),
            acked: Position(endpoint.place.seq),
            pending_records: self.records_after(endpoint.place.seq) + limbo_records as u64,
            pending_bytes: self.segments.iter().map(|segment| bytes_after(segment, endpoint)).sum(),
            oldest_pending_at: lent.map(|record| record.at).or(endpoint.oldest_at),
            acked_at: endpoint.acked_at,
            requeued: self.quarantine.requeued(&endpoint.name),
        }
    }
}

fn bytes_after(segment: &Segment, endpoint: &Endpoint) -> u64 {
    if segment.end.seq <= endpoint.place.seq {
        return 0;
    }
    let from = endpoint.spot.filter(|spot| spot.first == segment.first).map_or(FILE_HEADER_LEN, |spot| spot.offset);
    segment.len.saturating_sub(from)
}
