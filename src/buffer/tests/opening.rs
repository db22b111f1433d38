//! What opening and the first read ask of the disk: no more with a long backlog than with a short one.

use super::sim::SimFs;
use super::*;
use crate::buffer::record::Footer;
use crate::buffer::segment::FILE_HEADER_LEN;

/// What was read of a backlog.
#[derive(Debug)]
struct Bytes {
    open: u64,
    first_read: u64,
    first_segment: u64,
}

/// Opens a backlog of so many finished segments of about so many bytes, and reads one instant.
fn read_of(segments: usize, segment_bytes: u64) -> Bytes {
    let fs = SimFs::new(1);
    let options = LogOptions { max_bytes: 16 << 20, segment_bytes, ahead: 0, ..options(Path::new("/buffer"), &["a"]) };
    let mut log = Log::open(fs.clone(), options.clone()).unwrap();
    let noise = |at: u32, index: u32| {
        let bits = (u64::from(at) << 32 | u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Sample::new(series(index), Value::from_bits(bits))
    };
    for at in 1.. {
        let samples = (0..100).map(|index| noise(at, index)).collect();
        append(&mut log, &Snapshot::new(Timestamp::from_millis(i64::from(at) * 1000), samples));
        if fs.segments().len() > segments {
            break;
        }
    }
    log.close(Instant::now());
    drop(log);
    let first_segment = fs.len_of(&fs.segments()[0]) as u64;
    fs.take_read_bytes();
    let mut log = Log::open(fs.clone(), options).unwrap();
    let open = fs.take_read_bytes();
    assert_eq!(log.next(0, ONE).unwrap().snapshots.len(), 1);
    Bytes { open, first_read: fs.take_read_bytes(), first_segment }
}

#[test]
fn opening_and_the_first_read_cost_the_same_with_any_backlog() {
    let (short, long, wide) = (read_of(8, 16 << 10), read_of(40, 16 << 10), read_of(8, 128 << 10));
    assert_eq!(short.open, wide.open, "whatever is in the segments");
    let each = FILE_HEADER_LEN + Footer::RECORD_LEN as u64;
    assert!(long.open - short.open <= (40 - 8) * each, "{short:?} {long:?}");
    assert_eq!(short.first_read, long.first_read, "however many segments there are");
    for read in [&short, &wide] {
        assert!(read.first_read <= read.first_segment, "{read:?}: one segment, once");
    }
}
