//! Every way to draw in f32.
#![no_std]
#![no_main]

use core::hint::black_box;

use runtime::{Digit, Generate, Image, Latent};

include!("../linked.rs");

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let seeds: &[u64] = black_box(&[1, 2, 3]);
    let mut images = [Image::BLANK; 5];
    runtime::generate_batch(seeds, black_box(&mut images[..]));
    let digit = Digit::new(black_box(7)).and_then(|digit| runtime::generate_digit(black_box(1), digit));
    let class = runtime::class(black_box("7")).and_then(|class| runtime::generate_class(black_box(1), class));
    let walk = runtime::GENERATOR.draw(&Latent::from_numbers(&black_box([0.5; 100])));
    black_box((
        images,
        digit,
        class,
        walk,
        runtime::generate(black_box(42)),
        runtime::GENERATOR.draw_f32(&Latent::new(black_box(1))),
    ));
    runtime::generate_rows(black_box(7), |row| {
        black_box(row);
    });
    runtime::GENERATOR.draw_rows(&Latent::new(black_box(8)), &mut |row| {
        black_box(row);
    });
    0
}
