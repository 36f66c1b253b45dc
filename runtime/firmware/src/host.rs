//! Arm's semihosting, which RISC-V has too: the debugger or QEMU writes and exits for the program.

use core::arch::asm;

const OPEN: usize = 0x01;
const WRITE: usize = 0x05;
const EXIT: usize = 0x18;

/// Standard output or standard error of the host.
#[derive(Clone, Copy)]
pub struct Stream(usize);

impl Stream {
    /// Standard output.
    pub fn out() -> Self {
        Self::open(4)
    }

    /// Standard error.
    pub fn error() -> Self {
        Self::open(8)
    }

    fn open(mode: usize) -> Self {
        let name = b":tt\0";
        Self(call(OPEN, &[name.as_ptr() as usize, mode, name.len() - 1]))
    }

    /// Writes all of `bytes`.
    pub fn write(self, bytes: &[u8]) {
        call(WRITE, &[self.0, bytes.as_ptr() as usize, bytes.len()]);
    }

    /// Writes the line `name number`.
    pub fn line(self, name: &str, mut number: u32) {
        let mut digits = [0; 10];
        let mut rest: &[u8] = &[];
        for from in (0..digits.len()).rev() {
            if let Some(digit) = digits.get_mut(from) {
                *digit = b'0' + (number % 10) as u8;
            }
            number /= 10;
            if number == 0 {
                rest = digits.get(from..).unwrap_or_default();
                break;
            }
        }
        self.write(name.as_bytes());
        self.write(b" ");
        self.write(rest);
        self.write(b"\n");
    }
}

/// Ends the program with success.
pub fn exit() -> ! {
    /// "The application has exited", the reason that counts as success.
    const APPLICATION_EXIT: usize = 0x20026;
    loop {
        // SAFETY: the host reads the number and no memory.
        unsafe { trap(EXIT, APPLICATION_EXIT) };
    }
}

fn call(operation: usize, arguments: &[usize; 3]) -> usize {
    // SAFETY: OPEN and WRITE read three words and the bytes that one of them points to, which the caller has borrowed.
    unsafe { trap(operation, arguments.as_ptr() as usize) }
}

/// # Safety
/// `argument` is a value that the operation accepts.
unsafe fn trap(operation: usize, argument: usize) -> usize {
    let answer;
    // SAFETY: the host handles this trap and changes only the answer's register.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("bkpt 0xab", inlateout("r0") operation => answer, in("r1") argument, options(nostack))
    }
    // SAFETY: as above. The host recognises these three instructions if they are uncompressed and in one page.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!(
            ".balign 16", ".option push", ".option norvc", "slli zero, zero, 0x1f", "ebreak", "srai zero, zero, 7", ".option pop",
            inlateout("a0") operation => answer, in("a1") argument, options(nostack)
        )
    }
    answer
}
