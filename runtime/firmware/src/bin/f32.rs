//! Reports the cost of the f32 generator for CERTIFICATE.md.
#![no_std]
#![no_main]

#[firmware::entry]
fn main() -> ! {
    firmware::cost::report(|seed, row| runtime::generate_rows(seed, row))
}
