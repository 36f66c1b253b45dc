// The C interface of include/runtime.h, called from JavaScript.

const PIXELS = 784, LATENT = 100;

/** A module with a function that uses 128-bit vectors. */
const SIMD128 = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

/**
 * The name of the fastest module that this engine runs: runtime.simd128.wasm if it has 128-bit vectors, else runtime.wasm. Both
 * draw the same pixels.
 */
export const MODULE = WebAssembly.validate(new Uint8Array(SIMD128)) ? "runtime.simd128.wasm" : "runtime.wasm";

/**
 * Resolves to the generator of a module: its bytes (an ArrayBuffer or a view of one), a Response, or a promise of any of
 * these. Rejects if the server did not send the file.
 */
export async function load(source) {
  const { instance } = await WebAssembly.instantiate(await bytesOf(await source));
  const c = instance.exports;
  const at = 65536 * c.memory.grow(1); // a page that the module does not use: pixels, then z
  const z = at + 1024;
  const pixels = () => new Uint8Array(c.memory.buffer, at, PIXELS).slice();
  const classes = Array.from({ length: c.mnist_gan_classes() }, (_, i) => text(c.memory.buffer, c.mnist_gan_class_name(i)));
  const done = (code) => {
    if (code) throw new Error(`the generator returned ${code}; runtime.h lists the codes`);
  };
  return {
    /** The SHA-256 of the generator's f32 weights, in hexadecimal. It names the generator: modules with the same one draw alike. */
    weightsSha256: text(c.memory.buffer, c.mnist_gan_weights_sha256()),
    /** The names of the classes that `generate` can draw, in the order of their numbers; empty if the seed alone decides. */
    classes,
    /**
     * The image of a seed (a BigInt below 2n ** 64n): 784 grey levels, row by row. It shows the class `wanted`, a number or one of
     * the names in `classes`; null leaves the class to the seed.
     */
    generate(seed, wanted = null) {
      checkSeed(seed);
      const index = typeof wanted === "string" ? classes.indexOf(wanted) : wanted;
      if (index === null) done(c.mnist_gan_generate(seed, at));
      else if (classes[index] !== undefined && typeof index === "number") done(c.mnist_gan_generate_class(seed, index, at));
      else if (classes.length) throw new RangeError(`class: one of ${classes.join(", ")}, or null expected, ${show(wanted)} found`);
      else throw new Error("class: a class-conditional generator expected, an unconditional one found");
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

/** The text at an address in the module's memory, which ends with a zero byte. */
function text(memory, start) {
  const bytes = new Uint8Array(memory, start);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

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
