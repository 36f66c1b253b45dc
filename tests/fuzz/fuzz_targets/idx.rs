//! The trainer's reader of IDX files, raw or gzipped: any bytes are images or labels within the limit, or an error.
//!
//! An input is a byte that chooses images or labels, then the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trainer::data::idx::{IdxFile, Kind};

const LIMIT: u64 = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first() else { return };
    let kind = if choice % 2 == 0 { Kind::Images } else { Kind::Labels };
    let Ok(idx) = IdxFile::read(file, kind, LIMIT) else { return };
    assert!(idx.bytes.len() as u64 <= LIMIT);
    match &idx.gzip {
        Some(gzip) => assert_eq!(gzip, file),
        None => assert_eq!(idx.bytes, file),
    }
    let (head, items) = idx.bytes.split_at(if kind == Kind::Images { 16 } else { 8 });
    let items = items.to_vec();
    let n = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    match kind {
        Kind::Images => assert_eq!(idx.images().unwrap().into_raw_vec_and_offset().0, items),
        Kind::Labels => {
            assert_eq!(items.len(), n);
            if let Ok(labels) = idx.labels(n) {
                assert!(labels.iter().all(|&label| label <= 63));
            }
        }
    }
});
