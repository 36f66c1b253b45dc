//! Writes a digit as a PNG file, without a heap.
//!
//! Most pixels are black, and a row resembles the row above it. So a deflate stream with fixed Huffman codes that looks for
//! repeats 1 byte back (a run) and 29 bytes back (the row above) is short: the shipped generator's files for seeds 0 to 999 have
//! 173 to 506 bytes, 316 in the median. If compressing makes an image longer, its bytes are stored as they are.
//!
//! Source: RFC 1951 (deflate), RFC 1950 (zlib), PNG Specification (Third Edition).

use heapless::Vec;

use crate::image::Image;

/// The size of the longest file, in bytes: that of an image whose bytes are stored.
pub const MOST: usize = 880;
/// Bytes per row: the filter type (0, none) and the pixels.
const STRIDE: usize = 1 + Image::SIDE;
const RAW: usize = Image::SIDE * STRIDE;

/// The PNG file of an image, 28 × 28, 8-bit grey, at most [`MOST`] bytes.
///
/// ```
/// let png = runtime::png::encode(&runtime::generate(42));
/// assert!(png.starts_with(b"\x89PNG") && png.len() < 700);
/// ```
pub fn encode(image: &Image) -> Vec<u8, MOST> {
    let raw = |i: usize| match i % STRIDE {
        0 => 0,
        x => image.0.get(i / STRIDE * Image::SIDE + x - 1).copied().unwrap_or(0),
    };
    let mut bits = 0;
    deflate(&raw, &mut |_, n| bits += n);
    let mut out = Out(Vec::new());
    out.put(b"\x89PNG\r\n\x1a\n");
    let side = Image::SIDE as u8;
    out.chunk(13, |out| out.put(&[b'I', b'H', b'D', b'R', 0, 0, 0, side, 0, 0, 0, side, 8, 0, 0, 0, 0]));
    let size = (bits as usize).div_ceil(8).min(5 + RAW);
    out.chunk(2 + size as u32 + 4, |out| {
        out.put(b"IDAT\x78\x01");
        if size == 5 + RAW {
            let len = RAW as u16;
            out.put(&[1]);
            out.put(&len.to_le_bytes());
            out.put(&(!len).to_le_bytes());
            (0..RAW).for_each(|i| out.put(&[raw(i)]));
        } else {
            let (mut held, mut count) = (0, 0);
            deflate(&raw, &mut |code, n| {
                held |= code << count;
                count += n;
                while count >= 8 {
                    out.put(&[held as u8]);
                    held >>= 8;
                    count -= 8;
                }
            });
            if count > 0 {
                out.put(&[held as u8]);
            }
        }
        out.put(&adler32((0..RAW).map(raw)).to_be_bytes());
    });
    out.chunk(0, |out| out.put(b"IEND"));
    out.0
}

/// Calls `put` with the bits of a deflate stream of one block with fixed codes, the first bit lowest, and with their number.
fn deflate(raw: &impl Fn(usize) -> u8, put: &mut impl FnMut(u32, u32)) {
    let reversed = |code: u32, n: u32| code.reverse_bits() >> (32 - n); // Huffman codes are sent highest bit first
    put(0b011, 3);
    let mut i = 0;
    while i < RAW {
        let repeat = |back: usize| {
            let most = if back > i { 0 } else { 257.min(RAW - i) };
            (0..most).take_while(|n| raw(i + n) == raw(i + n - back)).count()
        };
        let (run, above) = (repeat(1), repeat(STRIDE));
        let length = run.max(above);
        if length < 3 {
            let byte = u32::from(raw(i));
            match byte {
                0..144 => put(reversed(0x30 + byte, 8), 8),
                _ => put(reversed(0x190 + byte - 144, 9), 9),
            }
            i += 1;
            continue;
        }
        // Lengths 3 to 10 have a code each. From 11 on, four codes have one extra bit, the next four have two, and so on.
        let more = length as u32 - 3;
        let extra = if more < 8 { 0 } else { more.ilog2() - 2 };
        let symbol = 1 + 4 * extra + (more >> extra);
        match symbol {
            0..24 => put(reversed(symbol, 7), 7),
            _ => put(reversed(0xc0 + symbol - 24, 8), 8),
        }
        put(more & ((1 << extra) - 1), extra);
        // Distance 1 is code 0; 25 to 32 are code 9 with three extra bits.
        match run >= above {
            true => put(0, 5),
            false => {
                put(reversed(9, 5), 5);
                put(STRIDE as u32 - 25, 3);
            }
        }
        i += length;
    }
    put(0, 7); // end of block
}

/// The file so far. It never has more than [`MOST`] bytes, so no byte is refused.
struct Out(Vec<u8, MOST>);

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        let _ = self.0.extend_from_slice(bytes);
    }

    /// Writes a chunk: length, the name and data that `fill` writes, CRC.
    fn chunk(&mut self, length: u32, fill: impl FnOnce(&mut Self)) {
        self.put(&length.to_be_bytes());
        let start = self.0.len();
        fill(self);
        let crc = crc32(self.0.get(start..).unwrap_or_default());
        self.put(&crc.to_be_bytes());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

fn adler32(bytes: impl Iterator<Item = u8>) -> u32 {
    let (a, b) = bytes.fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}
