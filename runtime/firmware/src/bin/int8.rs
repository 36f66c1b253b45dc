//! Reports the cost of the int8 generator for CERTIFICATE.md.
#![no_std]
#![no_main]

#[firmware::entry]
fn main() -> ! {
    firmware::cost::report(|seed, row| runtime::int8::generate_rows(seed, row))
}
