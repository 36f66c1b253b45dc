//! Every way to draw in int8, and PNG.
#![no_std]
#![no_main]

use core::hint::black_box;

use runtime::{Digit, Generate, Image, int8};

include!("../linked.rs");

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let seeds: &[u64] = black_box(&[1, 2, 3]);
    let mut images = [Image::BLANK; 5];
    int8::generate_batch(seeds, black_box(&mut images[..]));
    let digit = Digit::new(black_box(7)).and_then(|digit| int8::generate_digit(black_box(1), digit));
    let class = runtime::class(black_box("7")).and_then(|class| int8::generate_class(black_box(1), class));
    black_box((images, digit, class, int8::generate(black_box(42))));
    black_box(runtime::png::encode(black_box(&images[0])));
    int8::generate_rows(black_box(7), |row| {
        black_box(row);
    });
    int8::GENERATOR.draw_rows(&runtime::Latent::new(black_box(8)), &mut |row| {
        black_box(row);
    });
    0
}
