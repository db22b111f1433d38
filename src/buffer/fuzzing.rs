//! Doors for the fuzz targets (`fuzz/`), compiled only for them: bytes that anybody may have put on the disk.
//!
//! Each panics where a promise is broken; whatever the bytes are, it must return. The disk is in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::model::{Interner, Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};

use super::codec::{Definitions, Dictionary};
use super::durable::Meta;
use super::endpoint::{Endpoint, cursor_path};
use super::fs::{Access, Entry, EntryKind, Fs, Locking, Space, Standing};
use super::log::{Log, LogOptions};
use super::pair::{Pair, paths};
use super::record::{About, Kind, Seed, write};
use super::recover::encode_file_header;
use super::segment::{Mark, file_name};
use super::{Fates, Limits, Options, SyncPolicy};

const STORE_ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const ALL: Limits = Limits { instants_max: usize::MAX, samples_max: usize::MAX };

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Files in memory.
#[derive(Clone, Default)]
struct MemoryFs(Arc<Mutex<BTreeMap<PathBuf, Bytes>>>);

impl MemoryFs {
    fn put(&self, path: PathBuf, bytes: Vec<u8>) {
        self.0.lock().expect("one thread").insert(path, Arc::new(Mutex::new(bytes)));
    }
}

impl Fs for MemoryFs {
    type File = Bytes;
    type Lock = ();

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let files = self.0.lock().expect("one thread");
        let inside = files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, bytes): (&PathBuf, &Bytes)| Entry {
            name: path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned(),
            kind: EntryKind::File,
            len: bytes.lock().expect("one thread").len() as u64,
        };
        Ok(inside.map(entry).collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Bytes> {
        let mut files = self.0.lock().expect("one thread");
        match (files.get(path), access) {
            (Some(_), Access::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(bytes), _) => Ok(Arc::clone(bytes)),
            (None, Access::Read) => Err(io::ErrorKind::NotFound.into()),
            (None, _) => Ok(Arc::clone(files.entry(path.to_owned()).or_default())),
        }
    }

    fn len(&self, file: &Bytes) -> io::Result<u64> {
        Ok(file.lock().expect("one thread").len() as u64)
    }

    fn dir_len(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }

    fn standing(&self, _: &Bytes, _: &Path) -> io::Result<Standing> {
        Ok(Standing::Here)
    }

    fn read_at(&self, file: &Bytes, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = file.lock().expect("one thread");
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let len = bytes.len().min(content.len() - from);
        bytes[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, file: &Bytes, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut content = file.lock().expect("one thread");
        let from = usize::try_from(offset).expect("small files");
        let end = content.len().max(from + bytes.len());
        content.resize(end, 0);
        content[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn truncate(&self, file: &Bytes, len: u64) -> io::Result<()> {
        file.lock().expect("one thread").truncate(usize::try_from(len).expect("small files"));
        Ok(())
    }

    fn sync(&self, _: &Bytes) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().expect("one thread").remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, _: &Path) -> io::Result<Locking<()>> {
        Ok(Locking::Held(()))
    }

    fn is_met(&self, (): &(), _: &Path) -> bool {
        true
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 })
    }
}

fn one(at: i64, value: f64) -> Snapshot {
    let labels = Labels::builder().with("__name__", "up").build_lossy();
    let series = Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, ""))));
    Snapshot::new(Timestamp::from_millis(at), vec![Sample::new(series, Value::new(value))])
}

fn options() -> LogOptions {
    let options = LogOptions::new(Options {
        path: "/".into(),
        max_bytes: 4 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: vec!["a".to_owned()],
    });
    LogOptions { ahead: 1, ..options }
}

/// Opens what lies there, writes, reads everything: the account balances, and what was written is given out.
fn live(fs: &MemoryFs) {
    let Ok(mut log) = Log::open(fs.clone(), options()) else { panic!("an open failed because of a file's content") };
    let new = one(1_800_000_000_000, 7.0);
    let kept = log.append(new.clone(), Instant::now());
    let balances = |log: &Log<MemoryFs>| {
        let status = log.status();
        assert!(status.endpoints[0].ledger.balances(), "{:?}", status.endpoints[0].ledger);
        assert!(status.used_bytes <= status.max_bytes, "{} of {}", status.used_bytes, status.max_bytes);
    };
    balances(&log);
    let mut last = None;
    while let Some(lease) = log.next(0, ALL) {
        last = lease.snapshots.last().cloned().or(last);
        log.ack(0, lease.through.number(), Fates { delivered: lease.samples, ..Fates::default() });
        balances(&log);
    }
    assert!(kept.is_err() || last == Some(new), "what was appended is given out last");
    assert_eq!(log.status().endpoints[0].ledger.pending, 0);
    log.close(Instant::now());
}

/// The bytes of a segment: as they are, or cut into records whose checksums fit.
pub fn segment(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let first = 5;
    let mut bytes =
        encode_file_header(STORE_ID, Mark { seq: first - 1, samples: 10 }, first, Timestamp::from_millis(1));
    if mode & 1 == 0 {
        bytes.extend_from_slice(rest);
    } else {
        framed(rest, first, &mut bytes);
    }
    if mode & 2 != 0
        && let Some(at) = rest.first()
    {
        let at = usize::from(*at) % bytes.len();
        bytes[at] ^= 0x40;
    }
    let fs = MemoryFs::default();
    fs.put(options().dir.join(file_name(first)), bytes);
    live(&fs);
}

/// Records of any kind, positions and counts, with any payload.
fn framed(mut rest: &[u8], first: u64, out: &mut Vec<u8>) {
    const FIXED: usize = 6;
    while let Some((fixed, after)) = rest.split_first_chunk::<FIXED>() {
        let [kind, seq, before, samples, len, at] = *fixed;
        let (payload, after) = after.split_at(usize::from(len).min(after.len()));
        let kinds = [1, 2, 3, 4, 5, 6, 99];
        let kind = Kind::from_number(kinds[usize::from(kind) % kinds.len()]);
        let about = About {
            seq: first.wrapping_add(u64::from(seq)).wrapping_sub(2),
            samples_before: u64::from(before),
            at: Timestamp::from_millis(i64::from(at)),
            samples: u32::from(samples),
        };
        write(out, Seed::new(STORE_ID, first), kind, about, payload);
        rest = after;
    }
}

/// The files of a log, and its store's id.
type Left = (Vec<(PathBuf, Vec<u8>)>, u128);

/// The same small life each time, lived once.
static LIVED: OnceLock<Left> = OnceLock::new();

/// What four snapshots leave behind.
fn lived() -> Left {
    let fs = MemoryFs::default();
    let mut log = Log::open(fs.clone(), options()).unwrap_or_else(|_| panic!("an empty directory opens"));
    for at in 1..5 {
        log.append(one(at, 1.0), Instant::now()).ok();
    }
    let files = fs.0.lock().expect("one thread");
    let bytes = |bytes: &Bytes| bytes.lock().expect("one thread").clone();
    (files.iter().map(|(path, content)| (path.clone(), bytes(content))).collect(), log.store_id)
}

/// The bytes of a cursor's and of the notes' files: as they are, or as a value whose checksum fits.
pub fn cursor(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let (files, store_id) = LIVED.get_or_init(lived);
    let fs = MemoryFs::default();
    for (path, bytes) in files {
        fs.put(path.clone(), bytes.clone());
    }
    let (dir, store_id) = (options().dir, store_id.to_le_bytes());
    let base = if mode & 1 == 0 { cursor_path(&dir, "a") } else { dir.join("log") };
    if mode & 2 == 0 {
        for path in paths(&base) {
            fs.put(path, rest.to_vec());
        }
    } else {
        let mut value = rest.to_vec();
        let id = value.len().min(16);
        value[..id].copy_from_slice(&store_id[..id]);
        let len = if mode & 1 == 0 { Endpoint::FIXED_LEN + 1 } else { value.len() };
        value.resize(len, 0);
        if mode & 1 == 0 {
            // The name, so that the numbers are believed.
            value[len - 3..].copy_from_slice(&[1, 0, b'a']);
        }
        Meta::decode(&value);
        let stored = Pair::load(&fs, base).pair.store(&fs, &value);
        assert!(stored.is_ok(), "memory takes everything");
    }
    live(&fs);
}

/// Two payloads of the codec: definitions, and a snapshot that names them; and a round trip of any values.
pub fn codec(data: &[u8]) {
    let Some((&len, rest)) = data.split_first() else { return };
    let (left, right) = rest.split_at(usize::from(len).min(rest.len()));
    let mut definitions = Definitions::default();
    definitions.read(left, &mut Interner::default()).ok();
    for kind in [Kind::Snapshot, Kind::RichSnapshot] {
        definitions.decode(kind, Timestamp::from_millis(0), right).ok();
    }

    let labels = |index: usize| {
        let labels = Labels::builder().with("__name__", "m").with("i", index.to_string()).build_lossy();
        Arc::new(Series::new(labels, Arc::new(Metadata::of("m", MetricKind::Counter, "help"))))
    };
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    for (at, values) in rest.chunks(64).enumerate() {
        let sample = |(index, bits): (usize, &[u8])| {
            let mut word = [0; 8];
            word[..bits.len()].copy_from_slice(bits);
            let sample = Sample::new(labels(index), Value::from_bits(u64::from_le_bytes(word)));
            if word[0] & 1 == 1 { sample.started(Timestamp::from_millis(i64::from(word[1]))) } else { sample }
        };
        let at = Timestamp::from_millis(i64::try_from(at).unwrap_or(0));
        let snapshot = Snapshot::new(at, values.chunks(8).enumerate().map(sample).collect());
        let Ok(encoded) = dictionary.encode(&snapshot) else { panic!("a small snapshot fits") };
        for payload in &encoded.definitions {
            assert!(definitions.read(payload, &mut Interner::default()).is_ok(), "our own definitions are read");
        }
        assert_eq!(definitions.decode(encoded.kind, at, &encoded.snapshot), Ok(snapshot));
    }
}

/// What the fuzzer found once.
#[cfg(test)]
mod tests {
    #[test]
    fn a_segment_whose_totals_deny_what_it_skipped_keeps_the_account_balanced() {
        let skip = [2, 6, 197, 38, 6, 0, 6, 6, 6, 6, 65, 6];
        let mut totals = [0; 32];
        (totals[0], totals[14]) = (68, 1);
        super::segment(&[&[13], &skip[..], &[1, 6, 6, 0, 32, 6], &totals].concat());
    }

    #[test]
    fn a_cursor_beyond_the_log_that_knows_of_no_sample_is_not_believed() {
        let mut value = [0; 48];
        value[28] = 2;
        super::cursor(&[&[10], &value[1..]].concat());
    }

    #[test]
    fn a_cursor_that_knows_of_more_samples_than_its_segment_has_is_not_believed() {
        let mut value = [0; 51];
        value[0] = 0x3e;
        (value[25], value[33], value[34]) = (2, 0x40, 0x10);
        (value[41], value[49], value[50]) = (4, 0x40, 0x10);
        super::cursor(&value);
    }

    #[test]
    fn a_place_near_the_end_of_all_numbers_is_not_gone_on_from() {
        let mut value = [0x3f; 200];
        value[0] = 0xf2;
        super::cursor(&value[..89]);
        let mut value = [0; 75];
        value[0] = 0x3e;
        value[32..40].copy_from_slice(&[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        super::cursor(&value);
        for limit in [1_u64 << 61, (1 << 62) - 2] {
            let skip: Vec<u8> = limit.to_le_bytes().to_vec();
            super::segment(&[&[1, 2, 3, 10, 0, 8, 0][..], &skip].concat());
        }
    }

    #[test]
    fn skipped_samples_told_twice_are_counted_the_same_by_scanning_and_by_reading() {
        super::segment(&[
            0x61, 58, 33, 58, 117, 0, 99, 117, 114, 115, 111, 0, 33, 217, 254, 206, 255, 255, 255, 0, 0, 79, 10,
        ]);
    }
}
