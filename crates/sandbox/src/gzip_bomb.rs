//! Builds a gzip bomb: one zero byte, then "repeat the last byte 258 times" as often as needed. About 13 bits for 258
//! bytes.

/// Gzip of zeros that unpacks to at least `bytes` bytes (rounded up to whole repeats).
pub(crate) fn gzip_zeros(bytes: u64) -> Vec<u8> {
    let repeats = bytes.saturating_sub(1).div_ceil(258);
    let length = 1 + repeats * 258;
    let mut out = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits { out: &mut out, byte: 0, used: 0 };
    bits.push(0b011, 3); // last block, fixed codes (low bit first)
    bits.push_code(0x30, 8); // the literal 0
    for _ in 0..repeats {
        bits.push_code(0b1100_0101, 8); // length code 285: 258 bytes
        bits.push_code(0, 5); // distance code 0: the byte before
    }
    bits.push_code(0, 7); // end of block
    bits.flush();
    out.extend_from_slice(&crc_of_zeros(length).to_le_bytes());
    // The format's length field is modulo 2^32.
    let [a, b, c, d, ..] = length.to_le_bytes();
    out.extend_from_slice(&[a, b, c, d]);
    out
}

struct Bits<'a> {
    out: &'a mut Vec<u8>,
    byte: u8,
    used: u8,
}

impl Bits<'_> {
    /// Appends bits, low bit first, as DEFLATE packs plain numbers.
    fn push(&mut self, value: u16, count: u8) {
        for place in 0..count {
            self.bit((value >> place) & 1 == 1);
        }
    }

    /// Appends bits, high bit first, as DEFLATE packs Huffman codes.
    fn push_code(&mut self, code: u16, count: u8) {
        for place in (0..count).rev() {
            self.bit((code >> place) & 1 == 1);
        }
    }

    fn bit(&mut self, one: bool) {
        self.byte |= u8::from(one) << self.used;
        self.used += 1;
        if self.used == 8 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.used > 0 {
            self.out.push(self.byte);
            self.byte = 0;
            self.used = 0;
        }
    }
}

/// CRC-32 of `count` zero bytes, by squaring the step matrix of one zero byte.
fn crc_of_zeros(mut count: u64) -> u32 {
    let mut step: [u32; 32] = std::array::from_fn(|bit| {
        let start = 1_u32 << bit;
        (0..8).fold(start, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    let apply = |matrix: &[u32; 32], vector: u32| {
        (0..32).filter(|bit| vector >> bit & 1 == 1).fold(0, |sum, bit: usize| sum ^ matrix[bit])
    };
    let mut crc = u32::MAX;
    while count > 0 {
        if count & 1 == 1 {
            crc = apply(&step, crc);
        }
        step = std::array::from_fn(|bit| apply(&step, step[bit]));
        count >>= 1;
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{crc_of_zeros, gzip_zeros};

    #[test]
    fn checksums_of_zeros_are_the_known_ones() {
        assert_eq!(crc_of_zeros(0), 0);
        assert_eq!(crc_of_zeros(1), 0xD202_EF8D);
        assert_eq!(crc_of_zeros(4), 0x2144_DF1C);
    }

    #[test]
    fn a_gigabyte_takes_under_seven_megabytes() {
        assert!(gzip_zeros(1 << 20).len() < 8_000);
        assert!(gzip_zeros(1 << 30).len() < 7_000_000);
    }
}
