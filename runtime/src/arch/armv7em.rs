//! Assembly for Cortex-M cores: f32 sums on the FPU (Cortex-M4F, M7), int8 sums by the DSP extension's SMLAD (Cortex-M4, M7).
//!
//! Instructions for one image, by QEMU's `-icount` (CERTIFICATE.md has the current figures): f32 292,530, and 665,000 by C in
//! the style of onnx2c at gcc's -O3; int8 241,808, and 353,143 on a Cortex-M3, which lacks SMLAD.

use core::arch::asm;
#[cfg(fpu)]
use core::mem::MaybeUninit;

use super::tiling::tile_sums;

/// [`tile_sums`] in f32. The 32 registers of the FPU hold the sums from s0 on, then the inputs, then as many weights as there
/// is room for, which one instruction loads.
///
/// (rustc accepts none of these registers as an operand, because the FPU lacks f64. It accepts them as overwritten.)
///
/// # Safety
/// As for [`tile_sums`].
#[cfg(fpu)]
#[inline(always)]
pub(super) unsafe fn f32_tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
    weight: *const f32,
    bias: *const f32,
    x: &[[f32; K]; N],
) -> [[f32; N]; C] {
    let mut acc = MaybeUninit::<[[f32; N]; C]>::uninit();
    // SAFETY: the caller promises it; `acc` has room for C numbers, and each arm fills it.
    unsafe {
        match (N, C) {
            (1, 14) => sum_fourteen::<K, O>(bias, weight, x.as_ptr().cast(), acc.as_mut_ptr().cast()),
            (1, 16) => sum_sixteen::<K, O>(bias, weight, x.as_ptr().cast(), acc.as_mut_ptr().cast()),
            _ => return tile_sums::<f32, K, O, N, C>(weight, bias, x),
        }
        acc.assume_init()
    }
}

/// [`tile_sums`] in int8.
///
/// # Safety
/// As for [`tile_sums`]; `weight` is aligned to words.
#[cfg(dsp)]
#[inline(always)]
pub(super) unsafe fn int8_tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
    weight: *const [i8; 4],
    bias: *const i32,
    x: &[[[u8; 4]; K]; N],
) -> [[i32; N]; C] {
    // SAFETY: the caller promises it; `sums` holds N·C numbers, and LDR reads the inputs at any address.
    unsafe {
        if N == 1 && C == 4 {
            let mut sums = [[0; N]; C];
            sums.as_mut_ptr().cast::<[i32; 4]>().write(sum_four::<K, O>(weight.cast(), x.as_ptr().cast()));
            sums
        } else {
            tile_sums::<i32, K, O, N, C>(weight, bias, x)
        }
    }
}

/// Sums of four outputs of one image. The DSP extension multiplies both halves of a 32-bit word at once: inputs 0 and 2 of a
/// group of four, then inputs 1 and 3.
///
/// # Safety
/// As for [`tile_sums`]; `weight` is aligned to words, and `x` is valid for G words.
#[cfg(dsp)]
#[inline(always)]
unsafe fn sum_four<const G: usize, const O: usize>(weight: *const u32, x: *const u32) -> [i32; 4] {
    const { assert!(G > 0 && 4 * O < 4096) };
    let [mut a, mut b, mut c, mut d] = [0; 4];
    // SAFETY: reads G words of inputs and the first four words of G rows of weights. (SMLAD sets the flag Q if a sum
    // overflows. No layer's sum can.)
    unsafe {
        asm!(
            "2:",
            "ldr {t}, [{x}], #4",
            "uxtb16 {even}, {t}",
            "uxtb16 {odd}, {t}, ror #8",
            "ldrd {t}, {u}, [{w}]",
            "sxtb16 {v}, {t}",
            "sxtb16 {t}, {t}, ror #8",
            "smlad {a}, {v}, {even}, {a}",
            "sxtb16 {v}, {u}",
            "smlad {a}, {t}, {odd}, {a}",
            "sxtb16 {u}, {u}, ror #8",
            "smlad {b}, {v}, {even}, {b}",
            "smlad {b}, {u}, {odd}, {b}",
            "ldrd {t}, {u}, [{w}, #8]",
            "sxtb16 {v}, {t}",
            "sxtb16 {t}, {t}, ror #8",
            "smlad {c}, {v}, {even}, {c}",
            "sxtb16 {v}, {u}",
            "smlad {c}, {t}, {odd}, {c}",
            "sxtb16 {u}, {u}, ror #8",
            "smlad {d}, {v}, {even}, {d}",
            "smlad {d}, {u}, {odd}, {d}",
            "addw {w}, {w}, #{row}",
            "cmp {x}, {end}",
            "bne 2b",
            x = inout(reg) x => _,
            w = inout(reg) weight => _,
            end = in(reg) x.add(G),
            even = out(reg) _,
            odd = out(reg) _,
            t = out(reg) _,
            u = out(reg) _,
            v = out(reg) _,
            a = inout(reg) a,
            b = inout(reg) b,
            c = inout(reg) c,
            d = inout(reg) d,
            row = const 4 * O,
            options(pure, readonly, nostack),
        )
    }
    [a, b, c, d]
}

/// `sum += w · x` for each pair of registers, in the order given.
#[cfg(fpu)]
macro_rules! products {
    ($x:literal, $($sum:literal $w:literal)*) => {
        concat!($("vmul.f32 ", $w, ", ", $w, ", ", $x, "\n vadd.f32 ", $sum, ", ", $sum, ", ", $w, "\n",)*)
    };
}

#[cfg(fpu)]
macro_rules! fourteen_products {
    ($x:literal) => {
        products!($x, "s0" "s16" "s1" "s17" "s2" "s18" "s3" "s19" "s4" "s20" "s5" "s21" "s6" "s22" "s7" "s23"
            "s8" "s24" "s9" "s25" "s10" "s26" "s11" "s27" "s12" "s28" "s13" "s29")
    };
}

#[cfg(fpu)]
macro_rules! f32_sums {
    ($(#[$doc:meta])* $name:ident, $inputs:literal inputs per turn, $($line:expr,)*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As for [`tile_sums`]; `x` is valid for I numbers, and `sums` for one number per output.
        #[inline(always)]
        unsafe fn $name<const I: usize, const O: usize>(
            bias: *const f32,
            weight: *const f32,
            x: *const f32,
            sums: *mut f32,
        ) {
            const { assert!(I > 0 && I.is_multiple_of($inputs)) };
            // SAFETY: reads the bias, I numbers at `x`, and the first weights of I rows; writes the sums. The operands name
            // every register that changes.
            unsafe {
                asm!(
                    $($line,)*
                    bias = in(reg) bias,
                    w = inout(reg) weight => _,
                    x = inout(reg) x => _,
                    end = in(reg) x.add(I),
                    row = in(reg) 4 * O,
                    sums = in(reg) sums,
                    out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
                    out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _,
                    out("s15") _, out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _,
                    out("s22") _, out("s23") _, out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _,
                    out("s29") _, out("s30") _, out("s31") _,
                    options(nostack),
                )
            }
        }
    };
}

#[cfg(fpu)]
f32_sums!(
    /// Sums of 14 outputs, two inputs per turn of the loop.
    sum_fourteen, 2 inputs per turn,
    "vldmia {bias}, {{s0-s13}}",
    "2:",
    "vldmia {x}!, {{s30-s31}}",
    "vldmia {w}, {{s16-s29}}",
    "add {w}, {row}",
    fourteen_products!("s30"),
    "vldmia {w}, {{s16-s29}}",
    "add {w}, {row}",
    fourteen_products!("s31"),
    "cmp {x}, {end}",
    "bne 2b",
    "vstmia {sums}, {{s0-s13}}",
);
#[cfg(fpu)]
f32_sums!(
    /// Sums of 16 outputs. Only 15 of their weights fit the registers at once.
    sum_sixteen, 1 inputs per turn,
    "vldmia {bias}, {{s0-s15}}",
    "2:",
    "vldmia {x}!, {{s16}}",
    "vldmia {w}, {{s17-s31}}",
    products!("s16", "s0" "s17" "s1" "s18" "s2" "s19" "s3" "s20" "s4" "s21" "s5" "s22" "s6" "s23" "s7" "s24" "s8" "s25"
        "s9" "s26" "s10" "s27" "s11" "s28" "s12" "s29" "s13" "s30" "s14" "s31"),
    "vldr s17, [{w}, #60]",
    "add {w}, {row}",
    products!("s16", "s15" "s17"),
    "cmp {x}, {end}",
    "bne 2b",
    "vstmia {sums}, {{s0-s15}}",
);
