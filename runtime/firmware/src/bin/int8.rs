//! The certificate of the int8 generator.
#![no_std]
#![no_main]

#[firmware::entry]
fn main() -> ! {
    firmware::cost::report(|seed, row| runtime::int8::generate_rows(seed, row))
}
