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
    let n = u32::from_be_bytes([idx.bytes[4], idx.bytes[5], idx.bytes[6], idx.bytes[7]]) as usize;
    match kind {
        Kind::Images => {
            let items = idx.bytes[16..].to_vec();
            assert_eq!(idx.images().unwrap().into_raw_vec_and_offset().0, items);
        }
        Kind::Labels => {
            if let Ok(labels) = idx.labels(n) {
                assert!(labels.len() == n && labels.iter().all(|&label| label <= 63));
            }
        }
    }
});
