// The C interface of include/runtime.h, called from JavaScript.

const PIXELS = 784, LATENT = 100;

/** Resolves to the generator of a module, which is a Response (or a promise of one) or the module's bytes. */
export async function load(source) {
  const bytes = source instanceof Uint8Array ? source : await (await source).arrayBuffer();
  const { instance } = await WebAssembly.instantiate(bytes);
  const c = instance.exports;
  const at = 65536 * c.memory.grow(1); // a page that the module does not use: pixels, then z
  const z = at + 1024;
  const pixels = () => new Uint8Array(c.memory.buffer, at, PIXELS).slice();
  const done = (code) => {
    if (code) throw new Error(`the generator returned ${code}; runtime.h lists the codes`);
  };
  return {
    /** The image of a seed (a BigInt), of `digit` unless that is null: 784 grey levels, row by row. */
    generate(seed, digit = null) {
      done(digit === null ? c.mnist_gan_generate(seed, at) : c.mnist_gan_generate_digit(seed, digit, at));
      return pixels();
    },
    /** The z of a seed (a BigInt): 100 numbers in [-1, 1]. */
    latent(seed) {
      done(c.mnist_gan_latent(seed, z));
      return new Float32Array(c.memory.buffer, z, LATENT).slice();
    },
    /** The image of any z: 784 grey levels, row by row. */
    draw(numbers) {
      new Float32Array(c.memory.buffer, z, LATENT).set(numbers);
      done(c.mnist_gan_draw(z, at));
      return pixels();
    },
  };
}

/** The z between two z: a at t = 0, b at t = 1. */
export function walk(a, b, t) {
  return a.map((x, i) => x * (1 - t) + b[i] * t);
}
