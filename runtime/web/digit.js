// The C interface of include/runtime.h, called from JavaScript.

const PIXELS = 784, LATENT = 100, UNCONDITIONAL = -2;

/**
 * Resolves to the generator of runtime.wasm: its bytes (an ArrayBuffer or a view of one), a Response, or a promise of any of
 * these. Rejects if the server did not send the file.
 */
export async function load(source) {
  const { instance } = await WebAssembly.instantiate(await bytesOf(await source));
  const c = instance.exports;
  const at = 65536 * c.memory.grow(1); // a page that the module does not use: pixels, then z
  const z = at + 1024;
  const pixels = () => new Uint8Array(c.memory.buffer, at, PIXELS).slice();
  const done = (code) => {
    if (code === UNCONDITIONAL) throw new Error("digit: a class-conditional generator expected, an unconditional one found");
    if (code) throw new Error(`the generator returned ${code}; runtime.h lists the codes`);
  };
  return {
    /** The image of a seed (a BigInt below 2n ** 64n), of `digit` (0 to 9) unless that is null: 784 grey levels, row by row. */
    generate(seed, digit = null) {
      checkSeed(seed);
      if (digit !== null && !DIGITS.includes(digit)) throw new RangeError(`digit: 0 to 9 or null expected, ${show(digit)} found`);
      done(digit === null ? c.mnist_gan_generate(seed, at) : c.mnist_gan_generate_digit(seed, digit, at));
      return pixels();
    },
    /** The z of a seed (a BigInt below 2n ** 64n): 100 numbers in [-1, 1]. */
    latent(seed) {
      checkSeed(seed);
      done(c.mnist_gan_latent(seed, z));
      return new Float32Array(c.memory.buffer, z, LATENT).slice();
    },
    /** The image of any z, 100 numbers, which are clamped to [-1, 1]: 784 grey levels, row by row. */
    draw(numbers) {
      checkLatent(numbers);
      new Float32Array(c.memory.buffer, z, LATENT).set(numbers);
      done(c.mnist_gan_draw(z, at));
      return pixels();
    },
  };
}

/** The z between two z: a at t = 0, b at t = 1. */
export function walk(a, b, t) {
  checkLatent(a);
  checkLatent(b);
  if (typeof t !== "number") throw new TypeError(`t: a number expected, ${show(t)} found`);
  return Float32Array.from(a, (x, i) => x * (1 - t) + b[i] * t);
}

const DIGITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

async function bytesOf(source) {
  if (source?.byteLength !== undefined) return source;
  if (typeof source?.arrayBuffer !== "function") {
    throw new TypeError(`runtime.wasm: bytes, an ArrayBuffer or a Response expected, ${show(source)} found`);
  }
  if (source.ok === false) throw new Error(`${source.url}: ${source.status} ${source.statusText}; runtime.wasm expected`);
  return source.arrayBuffer();
}

function checkSeed(seed) {
  if (typeof seed === "bigint" && BigInt.asUintN(64, seed) === seed) return;
  throw new RangeError(`seed: a BigInt from 0n to 2n ** 64n - 1n expected, ${show(seed)} found`);
}

function checkLatent(z) {
  if (z?.length !== LATENT) throw new RangeError(`z: ${LATENT} numbers expected, ${z?.length ?? show(z)} found`);
  const other = Array.from(z).findIndex((x) => typeof x !== "number" || Number.isNaN(x));
  if (other >= 0) throw new TypeError(`z: ${LATENT} numbers expected, ${show(z[other])} found at ${other}`);
}

/** A value and its type, for messages. */
function show(value) {
  return value === null || value === undefined ? `${value}` : `${String(value).slice(0, 40)} (${typeof value})`;
}
