//! Four products in two instructions: Cortex-M's DSP extension multiplies both halves of a word at once.

use core::arch::asm;

/// Inputs 0 and 2, and 1 and 3, as 16 bits each.
pub type Inputs = (u32, u32);

#[inline(always)]
pub fn inputs(x: [u8; 4]) -> Inputs {
    let (even, odd);
    // SAFETY: widens bytes in registers.
    unsafe {
        asm!("uxtb16 {}, {}", out(reg) even, in(reg) u32::from_le_bytes(x), options(pure, nomem, nostack, preserves_flags));
        asm!("uxtb16 {}, {}, ror #8", out(reg) odd, in(reg) u32::from_le_bytes(x), options(pure, nomem, nostack, preserves_flags));
    }
    (even, odd)
}

#[inline(always)]
pub fn dot(sum: i32, w: [i8; 4], (x_even, x_odd): Inputs) -> i32 {
    let result;
    // SAFETY: arithmetic in registers. It would note in the flag Q that the sum overflowed, which no sum of a layer can.
    unsafe {
        asm!(
            "sxtb16 {even}, {w}",
            "sxtb16 {w}, {w}, ror #8",
            "smlad {sum}, {even}, {x_even}, {sum}",
            "smlad {sum}, {w}, {x_odd}, {sum}",
            even = out(reg) _,
            w = inout(reg) u32::from_le_bytes(w.map(|w| w as u8)) => _,
            sum = inout(reg) sum => result,
            x_even = in(reg) x_even,
            x_odd = in(reg) x_odd,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    result
}
