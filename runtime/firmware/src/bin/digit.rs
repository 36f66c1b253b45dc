//! Prints a digit on the host's terminal, row by row.
#![no_std]
#![no_main]

use firmware::host::{Stream, exit};

#[firmware::entry]
fn main() -> ! {
    let terminal = Stream::out();
    runtime::int8::generate_rows(42, |row| {
        for pixel in row {
            terminal.write(match pixel {
                0..64 => b" .",
                64..128 => b"::",
                128..192 => b"oo",
                192.. => b"##",
            });
        }
        terminal.write(b"\n");
    });
    exit()
}
