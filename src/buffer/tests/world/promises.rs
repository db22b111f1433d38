//! What the buffer promises, each as a function that fails when the promise is broken.

use super::*;
use crate::buffer::endpoint::cursor_path;

impl World {
    pub(super) fn every_promise_holds(&mut self) {
        self.the_ledger_balances();
        self.every_durable_record_is_given_out_or_counted();
        self.one_damaged_record_costs_one_record();
        self.disk_use_never_passes_max_bytes();
        self.the_newest_saved_state_is_there();
        assert_eq!(self.fs.synced_after_failure(), 0, "a failed sync was repeated");
    }

    /// I1.
    pub(super) fn every_durable_record_is_given_out_or_counted(&mut self) {
        for endpoint in self.log().status().endpoints {
            let ledger = endpoint.ledger;
            let seen = &self.seen[endpoint.name.as_str()];
            let accounted = ledger.pending + ledger.evicted.total() + ledger.corrupt + self.unnoticed_samples;
            assert!(
                seen.owed_samples <= accounted,
                "{}: {} samples are owed and only {accounted} accounted for: {ledger:?}, owed {:?}",
                endpoint.name,
                seen.owed_samples,
                seen.owed,
            );
        }
    }

    /// I2: what is given out was appended, bit for bit. Says which records they are.
    pub(super) fn no_record_is_altered(&self, lease: &Lease) -> Vec<u32> {
        let first = known_series(0);
        let identity = |snapshot: &Snapshot| {
            let id = snapshot.samples.iter().find(|sample| *sample.series == *first)?.value.number();
            let (id, record) = self.records.iter().find(|(known, _)| f64::from(**known).to_bits() == id.to_bits())?;
            (record.snapshot == *snapshot).then_some(*id)
        };
        let ids = lease
            .snapshots
            .iter()
            .map(|snapshot| identity(snapshot).unwrap_or_else(|| panic!("altered or invented: {snapshot:?}")));
        assert_eq!(lease.samples, lease.snapshots.iter().map(|one| one.samples.len() as u64).sum::<u64>());
        ids.collect()
    }

    /// I3.
    pub(super) fn order_is_kept_and_what_was_acknowledged_does_not_come_again(&mut self, name: &str, ids: &[u32]) {
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "out of order: {ids:?}");
        let seen = &self.seen[name];
        assert!(ids.first().copied() > seen.floor, "{name} had {:?} already and was given {ids:?}", seen.floor);
        self.duplicates += ids.iter().filter(|id| !seen.owed.contains(id)).count() as u64;
    }

    /// I4: at no instant since the last step, whatever the log says of itself.
    pub(super) fn disk_use_never_passes_max_bytes(&mut self) {
        let peak = self.fs.take_peak();
        let status = self.log().status();
        assert!(peak <= status.max_bytes, "{peak} bytes were on disk of {}", status.max_bytes);
        assert!(status.used_bytes <= status.max_bytes, "{} > {}", status.used_bytes, status.max_bytes);
    }

    /// I5, counted from above: a flipped bit costs no more than the largest record.
    pub(super) fn one_damaged_record_costs_one_record(&mut self) {
        if self.wrecked {
            return;
        }
        let bound = self.flips * self.largest_samples + self.volatile_samples;
        for endpoint in self.log().status().endpoints {
            if !self.seen[endpoint.name.as_str()].was_away {
                assert!(endpoint.ledger.corrupt <= bound, "{bound} < {endpoint:?}");
            }
        }
    }

    /// I6: whatever lies there; what fails now is the file system, and it was told to be well.
    pub(super) fn open_always_succeeds(&mut self) {
        let clean = std::mem::replace(&mut self.clean_life, true);
        self.forget_who_has_no_cursor();
        self.options.ahead = 1 + Rng(self.restarts.into()).next() % (1 << 20);
        if self.faults_outlive_the_process && self.fs.faulty() {
            self.log = Log::open(self.fs.clone(), self.options.clone()).ok();
            self.clean_life = false;
            if self.fs.is_dead() {
                return self.restart(self.power_cut_when_dead);
            }
        }
        if self.log.is_none() {
            self.fs.set(None);
            let log = Log::open(self.fs.clone(), self.options.clone());
            self.log = Some(log.unwrap_or_else(|error| panic!("does not open: {error}")));
        }
        // The bound may have been lowered: it holds from here on.
        self.fs.take_peak();
        let Self { seen, options, .. } = self;
        for name in NAMES {
            let configured = options.endpoints.iter().any(|known| known == name);
            if configured {
                seen.entry(name).or_default();
            } else if let Some(seen) = seen.get_mut(name) {
                seen.was_away = true;
            }
        }
        for seen in seen.values_mut() {
            seen.lease = None;
            if !clean {
                seen.floor = None;
            }
        }
    }

    /// On a full disk an endpoint may never have got a cursor: once it is configured no more, it is as good as one that
    /// nobody has ever known. So is one whose cursor was flipped in one file and torn in the other.
    fn forget_who_has_no_cursor(&mut self) {
        let notes_were_flipped = self.notes_were_flipped;
        for (name, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.was_away || notes_were_flipped) {
            let base = cursor_path(&self.options.dir, name);
            if self.fs.peek(|fs| Pair::load(fs, base)).value.is_none() {
                seen.owed.clear();
                seen.owed_samples = 0;
            }
        }
    }

    /// I7.
    pub(super) fn the_ledger_balances(&mut self) {
        for endpoint in self.log().status().endpoints {
            assert!(endpoint.ledger.balances(), "{endpoint:?}");
        }
    }

    /// I8.
    pub(super) fn no_io_error_stops_an_append(
        &self,
        result: Result<Appended, AppendError>,
        samples: u32,
    ) -> Option<Appended> {
        match result {
            Ok(appended) => Some(appended),
            Err(error) => {
                assert!(samples > SURELY_FITS_SAMPLES, "{samples} samples, {} bytes: {error}", self.options.max_bytes);
                None
            }
        }
    }

    /// When the disk is well, nothing is left in memory only.
    pub(super) fn it_recovers_by_itself(&mut self) {
        self.now += Duration::from_secs(3600);
        let now = self.now;
        self.log().tick(now);
        let status = self.log().status();
        assert!(!status.degraded, "{status:?}");
    }

    pub(super) fn the_newest_saved_state_is_there(&mut self) {
        if self.fs.faulty() || self.state.is_none() {
            return;
        }
        let found = self.log().load_state(STATE);
        let known = found == self.state || self.states_tried.iter().any(|tried| found.as_ref() == Some(tried));
        assert!(known, "the state that was saved is not there");
    }
}
