//! As much of CUDA as ONNX Runtime's CUDA provider needs to train a GAN here, on the CPU: what that provider decides, where
//! it runs a node, what it launches, captures and copies, can be seen without a GPU. How fast it is cannot.
//!
//! One library that stands in for libcudart, libcublas, libcublasLt, libcurand and libcuda (links to one file are one
//! library to the loader). Memory of the device is the host's, filled with NaNs. Work on a stream is done as late as CUDA
//! may do it, when somebody waits for it, so that what nobody waited for is missing; while a stream is captured, it is
//! recorded. Kernels are known by their names in ONNX Runtime 1.31; one that is not aborts with its name, and so does what
//! CUDA forbids in a capture.
//!
//! Faults, by environment variables: EMULATED_FAULT=CALL:CODE:N lets the Nth call of cudaGetDeviceCount, cudaSetDevice,
//! cudaMalloc or cudaGraphLaunch, or the Nth of the `waits`, return an error, and all after it; after 700 and more every call
//! fails that can, as CUDA does when a kernel crashed or the GPU is gone. EMULATED_REPORT names a file for a line of counts,
//! which is written when the process ends.

use std::alloc::{Layout, alloc};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

type Ptr = *mut c_void;
type Work = Box<dyn Fn() + Send + Sync>;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Dim3(u32, u32, u32);

#[derive(Default)]
struct Device {
    /// Kernels by the address of what the host calls.
    names: HashMap<usize, String>,
    memory: BTreeMap<usize, usize>,
    /// Pinned memory of the host, which copies read and write late.
    pinned: BTreeMap<usize, usize>,
    streams: HashMap<usize, Stream>,
    /// The stream that each event was recorded in, and after how many of its items.
    events: HashMap<usize, (usize, usize)>,
    /// The streams of cuBLAS's handles.
    handles: HashMap<usize, usize>,
    /// How many streams, events and handles were made.
    made: usize,
    /// What every call returns from now on.
    broken: c_int,
    /// A stream, and what was recorded of it.
    capture: Option<(usize, Vec<Work>)>,
    graphs: Vec<Arc<Vec<Work>>>,
    calls: HashMap<&'static str, u64>,
}

#[derive(Default)]
struct Stream {
    blocking: bool,
    /// What waits to be done.
    items: VecDeque<Item>,
    done: usize,
}

enum Item {
    Work(Work),
    Graph(Arc<Vec<Work>>),
    /// Not before these many items of a stream are done.
    After(usize, usize),
}

impl Device {
    fn queue(&mut self, stream: usize, item: Item) {
        if let Some((captured, nodes)) = &mut self.capture
            && *captured == stream
        {
            match item {
                Item::Work(work) => nodes.push(work),
                _ => stop("a graph or an event in a capture"),
            }
            return;
        }
        if self.capture.is_some() && matches!(item, Item::Graph(_)) {
            stop("a graph launched during a capture");
        }
        // The default stream and those that are not made to be apart from it take turns.
        let others = self.streams.iter().filter(|(other, of)| match stream {
            0 => of.blocking,
            _ => **other == 0 && self.streams[&stream].blocking,
        });
        let turns: Vec<Item> = others.map(|(&other, of)| Item::After(other, of.done + of.items.len())).collect();
        let items = &mut self.streams.entry(stream).or_default().items;
        items.extend(turns);
        items.push_back(item);
    }

    /// Does what a stream has to do until so many items of it are done.
    fn wait(&mut self, stream: usize, until: usize) {
        loop {
            let of = self.streams.entry(stream).or_default();
            if of.done >= until {
                return;
            }
            let Some(item) = of.items.pop_front() else { return };
            of.done += 1;
            match item {
                Item::Work(work) => work(),
                Item::Graph(nodes) => nodes.iter().for_each(|work| work()),
                Item::After(other, until) => self.wait(other, until),
            }
        }
    }

    fn wait_for_all(&mut self) {
        let streams: Vec<usize> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.wait(stream, usize::MAX));
    }

    /// CUDA's own streams have the first numbers.
    fn make(&mut self) -> usize {
        self.made += 1;
        15 + self.made
    }
}

fn holds(memory: &BTreeMap<usize, usize>, address: usize, size: usize) -> bool {
    memory.range(..=address).next_back().is_some_and(|(from, len)| address + size <= from + len)
}

fn is_device(address: usize, size: usize) -> bool {
    holds(&device().memory, address, size)
}

static DEVICE: LazyLock<Mutex<Device>> = LazyLock::new(|| {
    unsafe extern "C" {
        fn atexit(f: extern "C" fn()) -> c_int;
    }
    unsafe { atexit(report) };
    Mutex::default()
});

fn device() -> MutexGuard<'static, Device> {
    DEVICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn stop(what: &str) -> ! {
    eprintln!("emulated CUDA: {what}");
    std::process::abort()
}

/// Counts a call; the error that it shall return, or 0.
fn called(name: &'static str) -> c_int {
    static FAULT: LazyLock<Option<(String, c_int, u64)>> = LazyLock::new(|| {
        let fault = std::env::var("EMULATED_FAULT").ok()?;
        let mut parts = fault.split(':').map(str::to_string);
        Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    let mut device = device();
    let count = device.calls.entry(name).or_default();
    *count += 1;
    let count = *count;
    match &*FAULT {
        _ if device.broken != 0 => device.broken,
        Some((call, code, from)) if call == name && count >= *from => {
            device.broken = if *code >= 700 { *code } else { 0 };
            *code
        }
        _ => 0,
    }
}

/// A call that waits for the device or changes its memory at once.
fn not_in_a_capture(name: &'static str) {
    if device().capture.is_some() {
        stop(&format!("{name} in a capture"));
    }
}

// ---- kernels

/// A kernel's arguments; what it does is done later, so they are read at once.
struct Args(*const *const c_void);

impl Args {
    fn get<T: Copy>(&self, i: usize) -> T {
        unsafe { self.0.add(i).read().cast::<T>().read_unaligned() }
    }

    /// Null where it is optional and absent.
    fn tensor<T: Copy>(&self, i: usize) -> Tensor<T> {
        let tensor: Tensor<T> = self.get(i);
        if !tensor.0.is_null() && !is_device(tensor.0 as usize, 1) {
            stop(&format!("a kernel reads the host's memory, argument {i}"));
        }
        tensor
    }
}

/// Numbers on the device.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Tensor<T>(*mut T);

unsafe impl<T> Send for Tensor<T> {}
unsafe impl<T> Sync for Tensor<T> {}

impl<T: Copy> Tensor<T> {
    fn get(self, i: usize) -> T {
        unsafe { self.0.add(i).read() }
    }

    fn set(self, i: usize, value: T) {
        unsafe { self.0.add(i).write(value) }
    }

    fn slice<'a>(self, from: usize, len: usize) -> &'a [T] {
        unsafe { std::slice::from_raw_parts(self.0.add(from), len) }
    }

    fn slice_mut<'a>(self, from: usize, len: usize) -> &'a mut [T] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}

/// ONNX Runtime's fast division, of which the divisor comes first.
#[repr(C)]
#[derive(Clone, Copy)]
struct DivMod(i32, u32, u32);

impl DivMod {
    fn divmod(self, i: usize) -> (usize, usize) {
        (i / self.0 as usize, i % self.0 as usize)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Array<T, const N: usize>(i32, [T; N]);

fn elementwise<T: Copy + 'static>(n: usize, out: Tensor<T>, f: impl Fn(usize) -> T + Send + Sync + 'static) -> Work {
    Box::new(move || (0..n).for_each(|i| out.set(i, f(i))))
}

/// What the kernel of this mangled name does.
fn kernel(name: &str, a: Args) -> Option<Work> {
    let is = |part: &str| name.contains(part);
    let count = |i: usize| a.get::<i32>(i) as usize;
    Some(if is("_UnaryElementWiseIff") {
        let alpha = if is("OP_LeakyRelu") { unsafe { a.0.add(2).read().cast::<f32>().read() } } else { 0.0 };
        let f: fn(f32, f32) -> f32 = match () {
            _ if is("OP_Sigmoid") => |x, _| 1.0 / (1.0 + (-x).exp()),
            _ if is("OP_Softplus") => |x, _| x.max(0.0) + (-x.abs()).exp().ln_1p(),
            _ if is("OP_Sqrt") => |x, _| x.sqrt(),
            _ if is("OP_Tanh") => |x, _| x.tanh(),
            _ if is("OP_Neg") => |x, _| -x,
            _ if is("OP_LeakyRelu") => |x, alpha| if x >= 0.0 { x } else { alpha * x },
            _ => return None,
        };
        let x = a.tensor::<f32>(0);
        elementwise(a.get::<i64>(3) as usize, a.tensor(1), move |i| f(x.get(i), alpha))
    } else if is("_UnaryElementWiseIhlNS0_7OP_Cast") {
        let x = a.tensor::<u8>(0);
        elementwise(a.get::<i64>(3) as usize, a.tensor(1), move |i| i64::from(x.get(i)))
    } else if is("_BinaryElementWiseSimpleILb") {
        match () {
            _ if is("OP_Add") => binary(name, &a, |l, r| l + r),
            _ if is("OP_Sub") => binary(name, &a, |l, r| l - r),
            _ if is("OP_Mul") => binary(name, &a, |l, r| l * r),
            _ if is("OP_Div") => binary(name, &a, |l, r| l / r),
            _ if is("OP_GreaterIbff") => binary(name, &a, |l, r| u8::from(l > r)),
            _ => return None,
        }
    } else if is("_BinaryElementWiseIfffNS0_6OP_Mul") {
        let (rank, steps) = (count(0), a.get::<Array<DivMod, 8>>(5));
        let side = |strides: usize, tensor: usize, spread: bool| {
            let (strides, x) = (a.get::<Array<i64, 8>>(strides), a.tensor::<f32>(tensor));
            move |i: usize| {
                let mut rest = i;
                let mut index = 0;
                for d in 0..rank {
                    let (q, r) = steps.1[d].divmod(rest);
                    index += q * strides.1[d] as usize;
                    rest = r;
                }
                x.get(if spread { index } else { i })
            }
        };
        let (l, r) = (side(1, 2, is("EELb1ELb")), side(3, 4, is("Lb1ELi256")));
        elementwise(count(8), a.tensor(6), move |i| l(i) * r(i))
    } else if is("5_ClipIfE") {
        let (x, limits, default) = (a.tensor::<f32>(0), [a.tensor::<f32>(2), a.tensor(3)], [a.get::<f32>(4), a.get(5)]);
        let limit = move |i: usize| if limits[i].0.is_null() { default[i] } else { limits[i].get(0) };
        elementwise(a.get::<usize>(6), a.tensor(1), move |i| x.get(i).clamp(limit(0), limit(1)))
    } else if is("_TenaryElementWiseSimpleIfLNS0_18BroadcastIndexTypeE0E") {
        let all = |broadcast: &str| !is(broadcast);
        let (all_x, all_y) = (all("E0ELS2_1E"), all("E0ELS2_0ELS2_1E") && all("E0ELS2_1ELS2_1E"));
        let (condition, x, y) = (a.tensor::<u8>(0), a.tensor::<f32>(1), a.tensor::<f32>(2));
        elementwise(count(4), a.tensor(3), move |i| match condition.get(i) != 0 {
            true => x.get(if all_x { i } else { 0 }),
            false => y.get(if all_y { i } else { 0 }),
        })
    } else if is("BroadcastBiasKernelIfiLb0E") {
        let (bias, columns, strides) = (a.tensor::<f32>(0), a.get::<DivMod>(3), [count(4), count(5)]);
        elementwise(a.get::<i64>(2) as usize, a.tensor(1), move |i| {
            let (row, column) = columns.divmod(i);
            bias.get(row * strides[0] + column * strides[1])
        })
    } else if is("_GatherKernelIi") {
        gather::<i32>(&a)
    } else if is("_GatherKernelIa") {
        gather::<u8>(&a)
    } else if is("_ConcatKernelSameConcatDimIi") {
        concat_equal::<i32>(&a)
    } else if is("_ConcatKernelSameConcatDimIa") {
        concat_equal::<u8>(&a)
    } else if is("_ConcatKernelOutputMajorIi") {
        let (whole, inside, ends) = (a.get::<DivMod>(0), a.get::<DivMod>(1), a.get::<Array<i64, 32>>(2));
        let inputs = a.get::<Array<Tensor<i32>, 32>>(4);
        elementwise(count(5), a.tensor(3), move |i| {
            let (outer, rest) = whole.divmod(i);
            let (block, offset) = inside.divmod(rest);
            let k = (0..32).find(|&k| ends.1[k] as usize > block).expect("one of the inputs");
            let from = if k == 0 { 0 } else { ends.1[k - 1] as usize };
            let size = ends.1[k] as usize - from;
            inputs.1[k].get((outer * size + block - from) * inside.0 as usize + offset)
        })
    } else if is("_ConcatKernelInputMajorIa") {
        let inputs = a.get::<Array<Tensor<u8>, 32>>(0);
        let (offsets, widths) = (a.get::<Array<i32, 32>>(2), a.get::<Array<DivMod, 32>>(3));
        let (outer, pitch, out) = (count(4), count(5), a.tensor::<u8>(6));
        Box::new(move || {
            for k in 0..inputs.0 as usize {
                let (offset, width) = (offsets.1[k] as usize, widths.1[k].0 as usize);
                for row in 0..outer {
                    let x = inputs.1[k].slice(row * width, width);
                    out.slice_mut(row * pitch + offset, width).copy_from_slice(x);
                }
            }
        })
    } else if is("_SliceKernelILb0ELi2EiE") {
        slice::<i32>(&a)
    } else if is("_SliceKernelILb0ELi2EaE") {
        slice::<u8>(&a)
    } else if is("_SplitKernelSameSplitDimIiNS0_6TArray") {
        let [whole, inside, each] = [0, 1, 2].map(|i| a.get::<DivMod>(i));
        let (x, outputs, n) = (a.tensor::<i32>(4), a.get::<Array<Tensor<i32>, 32>>(5), count(6));
        Box::new(move || {
            for i in 0..n {
                let (outer, rest) = whole.divmod(i);
                let (block, offset) = inside.divmod(rest);
                let (k, block) = each.divmod(block);
                outputs.1[k].set((outer * each.0 as usize + block) * inside.0 as usize + offset, x.get(i));
            }
        })
    } else if is("_SplitSmallInnerKernelI") {
        let (sizes, x) = (a.get::<Array<i64, 4>>(0), a.tensor::<u8>(1)); // in bytes
        let (outputs, row) = (a.get::<Array<Tensor<u8>, 4>>(2), a.get::<i64>(3) as usize);
        let unit = [("I4int4E", 16), ("IlE", 8), ("IiE", 4), ("IsE", 2), ("IaE", 1)];
        let unit = unit.iter().find(|(unit, _)| is(&format!("Kernel{unit}")))?.1;
        let rows = count(4) * unit / row;
        Box::new(move || {
            for r in 0..rows {
                let mut from = r * row;
                for k in 0..sizes.0 as usize {
                    let size = sizes.1[k] as usize;
                    outputs.1[k].slice_mut(r * size, size).copy_from_slice(x.slice(from, size));
                    from += size;
                }
            }
        })
    } else if is("reduce_matrix_columns_kernelIfffNS0_8IdentityES3_") {
        let (rows, columns, x) = (count(0), count(1), a.tensor::<f32>(2));
        elementwise(rows, a.tensor::<f32>(3), move |row| x.slice(row * columns, columns).iter().sum())
    } else {
        return None;
    })
}

/// An operation on tensors of one shape, or on one and a scalar.
fn binary<T: Copy + 'static>(name: &str, a: &Args, f: impl Fn(f32, f32) -> T + Send + Sync + 'static) -> Work {
    let (l, r) = (a.tensor::<f32>(0), a.tensor::<f32>(1));
    let (all_l, all_r) =
        (name.contains("SimpleILb1E"), name.contains("SimpleILb1ELb1") || name.contains("SimpleILb0ELb1"));
    let at = |all: bool, i: usize| if all { i } else { 0 };
    elementwise(a.get::<i32>(4) as usize, a.tensor(2), move |i| f(l.get(at(all_l, i)), r.get(at(all_r, i))))
}

fn gather<T: Copy + 'static>(a: &Args) -> Work {
    let (input_block, most) = (a.get::<i64>(0) as usize, a.get::<i64>(1));
    let (whole, block) = (a.get::<DivMod>(2), a.get::<DivMod>(3));
    if a.get::<usize>(5) != 8 {
        stop("Gather by indices that are no i64");
    }
    let (indices, x) = (a.tensor::<i64>(4), a.tensor::<T>(6));
    elementwise(a.get::<i32>(8) as usize, a.tensor(7), move |i| {
        let (outer, rest) = whole.divmod(i);
        let (index, offset) = block.divmod(rest);
        let index = indices.get(index);
        if !(0..most).contains(&index) {
            stop(&format!("Gather of {index} out of {most}"));
        }
        x.get(outer * input_block + index as usize * block.0 as usize + offset)
    })
}

fn concat_equal<T: Copy + 'static>(a: &Args) -> Work {
    let [whole, inside, each] = [0, 1, 2].map(|i| a.get::<DivMod>(i));
    let inputs = a.get::<Array<Tensor<T>, 32>>(4);
    elementwise(a.get::<i32>(5) as usize, a.tensor(3), move |i| {
        let (outer, rest) = whole.divmod(i);
        let (block, offset) = inside.divmod(rest);
        let (k, block) = each.divmod(block);
        inputs.1[k].get((outer * each.0 as usize + block) * inside.0 as usize + offset)
    })
}

fn slice<T: Copy + 'static>(a: &Args) -> Work {
    let [starts, steps, strides] = [0, 1, 2].map(|i| a.get::<Array<i64, 8>>(i));
    let (row, x) = (a.get::<Array<DivMod, 8>>(3).1[0], a.tensor::<T>(4));
    elementwise(a.get::<i32>(6) as usize, a.tensor(5), move |i| {
        let (r, c) = row.divmod(i);
        let at = |d: usize, i: usize| starts.1[d] + i as i64 * steps.1[d];
        x.get((at(0, r) * strides.1[0] + at(1, c)) as usize)
    })
}

fn launch(function: usize, grid: Dim3, args: *const *const c_void, stream: usize) -> c_int {
    let name = device().names.get(&function).cloned().unwrap_or_default();
    if grid.0 * grid.1 * grid.2 == 0 {
        stop(&format!("no blocks of {name}"));
    }
    let work = kernel(&name, Args(args)).unwrap_or_else(|| stop(&format!("no kernel {name}")));
    device().queue(stream, Item::Work(work));
    0
}

/// Whether products may be rounded to TF32 (cuBLAS's mode 3).
static MODE: AtomicI32 = AtomicI32::new(0);

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetMathMode(_: Ptr, mode: c_int) -> c_int {
    MODE.store(mode, Relaxed);
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetMathMode(_: Ptr, mode: *mut c_int) -> c_int {
    unsafe { mode.write(MODE.load(Relaxed)) };
    0
}

/// The nearest number of 10 bits, where TF32 is allowed.
fn rounded(x: f32, tf32: bool) -> f32 {
    if tf32 { f32::from_bits((x.to_bits() + (1 << 12)) & !((1 << 13) - 1)) } else { x }
}

/// C (m, n) = α op(A) op(B) + β C, column-major.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSgemm_v2(
    handle: usize,
    trans_a: c_int,
    trans_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const f32,
    a: Tensor<f32>,
    lda: c_int,
    b: Tensor<f32>,
    ldb: c_int,
    beta: *const f32,
    c: Tensor<f32>,
    ldc: c_int,
) -> c_int {
    let (alpha, beta) = unsafe { (alpha.read(), beta.read()) };
    let [m, n, k, lda, ldb, ldc] = [m, n, k, lda, ldb, ldc].map(|x| x as usize);
    let tf32 = MODE.load(Relaxed) == 3;
    let work = Box::new(move || {
        let at_a = |l: usize, i: usize| if trans_a == 0 { a.get(i + l * lda) } else { a.get(l + i * lda) };
        let at_b = |l: usize, j: usize| if trans_b == 0 { b.get(l + j * ldb) } else { b.get(j + l * ldb) };
        let a: Vec<f32> = (0..k).flat_map(|l| (0..m).map(move |i| rounded(at_a(l, i), tf32))).collect(); // op(A), column-major
        let columns: Vec<usize> = (0..n).collect();
        for block in columns.chunks(8) {
            for &j in block {
                let scaled = |x: f32| if beta == 0.0 { 0.0 } else { beta * x };
                c.slice_mut(j * ldc, m).iter_mut().for_each(|x| *x = scaled(*x));
            }
            for (l, a) in a.chunks(m).enumerate() {
                for &j in block {
                    let b = alpha * rounded(at_b(l, j), tf32);
                    c.slice_mut(j * ldc, m).iter_mut().zip(a).for_each(|(x, a)| *x += a * b);
                }
            }
        }
    });
    let mut device = device();
    let stream = device.handles.get(&handle).copied().unwrap_or(0);
    device.queue(stream, Item::Work(work));
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(handle: usize, stream: usize) -> c_int {
    device().handles.insert(handle, stream);
    0
}

// ---- kernels' registration and launch

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinary(_: Ptr) -> Ptr {
    std::ptr::dangling_mut::<usize>().cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFunction(
    _: Ptr,
    host: usize,
    _: Ptr,
    name: *const c_char,
    _: c_int,
    _: Ptr,
    _: Ptr,
    _: Ptr,
    _: Ptr,
    _: Ptr,
) {
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    device().names.insert(host, name);
}

thread_local! {
    static CONFIGURATION: std::cell::Cell<(Dim3, Dim3, usize, usize)> = const { std::cell::Cell::new((Dim3(1, 1, 1), Dim3(1, 1, 1), 0, 0)) };
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaPushCallConfiguration(grid: Dim3, block: Dim3, shared: usize, stream: usize) -> u32 {
    CONFIGURATION.set((grid, block, shared, stream));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaPopCallConfiguration(
    grid: *mut Dim3,
    block: *mut Dim3,
    shared: *mut usize,
    stream: *mut usize,
) -> c_int {
    let (g, b, s, at) = CONFIGURATION.get();
    unsafe {
        grid.write(g);
        block.write(b);
        shared.write(s);
        stream.write(at);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaGetKernel(kernel: *mut usize, function: usize) -> c_int {
    unsafe { kernel.write(function) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaLaunchKernel(
    function: usize,
    grid: Dim3,
    _: Dim3,
    args: *const *const c_void,
    _: usize,
    stream: usize,
) -> c_int {
    launch(function, grid, args, stream)
}

// ---- memory

const ALIGNED: usize = 512;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMalloc(pointer: *mut usize, size: usize) -> c_int {
    not_in_a_capture("cudaMalloc");
    let error = called("cudaMalloc");
    unsafe { pointer.write(0) };
    if error == 0 {
        let size = size.max(1).next_multiple_of(ALIGNED);
        let memory = unsafe { alloc(Layout::from_size_align(size, ALIGNED).expect("a size")) };
        unsafe {
            memory.write_bytes(0xff, size);
            pointer.write(memory as usize);
        }
        device().memory.insert(memory as usize, size);
    }
    error
}

/// The memory is spoilt and kept, so that whoever reads it later finds out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaFree(pointer: usize) -> c_int {
    not_in_a_capture("cudaFree");
    let mut device = device();
    device.wait_for_all();
    match device.memory.remove(&pointer) {
        Some(size) => unsafe { (pointer as *mut u8).write_bytes(0xff, size) },
        None if pointer == 0 => {}
        None => stop("cudaFree of what was not allocated"),
    }
    device.broken
}

/// Pinned memory of the host, which is little and never given back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaHostAlloc(pointer: *mut usize, size: usize, _: u32) -> c_int {
    not_in_a_capture("cudaHostAlloc");
    let memory = unsafe { alloc(Layout::from_size_align(size.max(1), ALIGNED).expect("a size")) };
    unsafe { pointer.write(memory as usize) };
    device().pinned.insert(memory as usize, size);
    0
}

/// Queues a copy; returns whether the host has to wait for it.
fn copy(to: usize, from: usize, size: usize, stream: usize) -> bool {
    let (from_device, to_device) = (is_device(from, size), is_device(to, size));
    let is_pinned = |address: usize| holds(&device().pinned, address, size);
    let copied = move |from: *const u8| unsafe { std::ptr::copy(from, to as *mut u8, size) };
    let work: Work = match (from_device, to_device) {
        (false, true) if !is_pinned(from) => {
            // Such memory is read at once.
            let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, size) }.to_vec();
            Box::new(move || copied(bytes.as_ptr()))
        }
        _ => Box::new(move || copied(from as *const u8)),
    };
    match (from_device, to_device) {
        (false, true) => _ = called("copies to the device"),
        (true, false) => _ = called("copies to the host"),
        _ => {}
    }
    device().queue(stream, Item::Work(work));
    !to_device && !is_pinned(to)
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaMemcpy(to: usize, from: usize, size: usize, _: c_int) -> c_int {
    not_in_a_capture("cudaMemcpy");
    // From other memory than pinned it may be on its way still.
    let pinned = holds(&device().pinned, from, size);
    if copy(to, from, size, 0) || pinned {
        device().wait(0, usize::MAX);
    }
    device().broken
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaMemcpyAsync(to: usize, from: usize, size: usize, _: c_int, stream: usize) -> c_int {
    if !(is_device(to, size) && is_device(from, size)) {
        not_in_a_capture("a copy from or to the host");
    }
    if copy(to, from, size, stream) {
        device().wait(stream, usize::MAX);
    }
    device().broken
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaMemset(to: usize, value: c_int, size: usize) -> c_int {
    not_in_a_capture("cudaMemset");
    cudaMemsetAsync(to, value, size, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaMemsetAsync(to: usize, value: c_int, size: usize, stream: usize) -> c_int {
    let work = Box::new(move || unsafe { (to as *mut u8).write_bytes(value as u8, size) });
    device().queue(stream, Item::Work(work));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaMemGetInfo(free: *mut usize, total: *mut usize) -> c_int {
    unsafe {
        free.write(70 << 30);
        total.write(80 << 30);
    }
    0
}

// ---- the device

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetDeviceCount(count: *mut c_int) -> c_int {
    unsafe { count.write(1) };
    called("cudaGetDeviceCount")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetDevice(device: *mut c_int) -> c_int {
    unsafe { device.write(0) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaSetDevice(_: c_int) -> c_int {
    called("cudaSetDevice")
}

/// CUDA 13.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { version.write(13000) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaRuntimeGetVersion(version: *mut c_int) -> c_int {
    unsafe { cudaDriverGetVersion(version) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaDeviceGetAttribute(value: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let known = match attribute {
        1 => 1024,    // threads of a block
        10 => 32,     // threads of a warp
        16 => 132,    // multiprocessors
        75 => 9,      // compute capability, major
        97 => 232448, // shared memory of a block, where asked for
        _ => 0,
    };
    unsafe { value.write(known) };
    0
}

/// CUDA 13's cudaDeviceProp has 1008 bytes, of which these are not zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGetDeviceProperties(properties: *mut u8, _: c_int) -> c_int {
    let known: [(usize, u32); 15] = [
        (292, 20),       // totalGlobalMem, in its upper half
        (296, 48 << 10), // sharedMemPerBlock
        (304, 64 << 10), // regsPerBlock
        (308, 32),       // warpSize
        (320, 1024),     // maxThreadsPerBlock
        (324, 1024),     // maxThreadsDim
        (328, 1024),
        (332, 64),
        (336, i32::MAX as u32), // maxGridSize
        (340, 65535),
        (344, 65535),
        (360, 9),         // major
        (384, 132),       // multiProcessorCount
        (604, 2048),      // maxThreadsPerMultiProcessor
        (672, 227 << 10), // sharedMemPerBlockOptin
    ];
    unsafe {
        properties.write_bytes(0, 1008);
        known.iter().for_each(|(at, value)| properties.add(*at).cast::<u32>().write(*value));
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorName(_: c_int) -> *const c_char {
    c"error".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorString(error: c_int) -> *const c_char {
    match error {
        2 => c"out of memory",
        35 => c"CUDA driver version is insufficient for CUDA runtime version",
        46 => c"CUDA-capable device(s) is/are busy or unavailable",
        100 => c"no CUDA-capable device is detected",
        719 => c"unspecified launch failure",
        _ => c"an error",
    }
    .as_ptr()
}

// ---- streams, events, graphs

/// `apart` is 1 for a stream that does not take turns with the default one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaStreamCreateWithFlags(stream: *mut usize, apart: u32) -> c_int {
    let mut device = device();
    let made = device.make();
    device.streams.insert(made, Stream { blocking: apart == 0, ..Stream::default() });
    unsafe { stream.write(made) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaStreamCreate(stream: *mut usize) -> c_int {
    unsafe { cudaStreamCreateWithFlags(stream, 0) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaStreamSynchronize(stream: usize) -> c_int {
    not_in_a_capture("cudaStreamSynchronize");
    device().wait(stream, usize::MAX);
    called("waits")
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaDeviceSynchronize() -> c_int {
    not_in_a_capture("cudaDeviceSynchronize");
    device().wait_for_all();
    called("waits")
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaEventRecord(event: usize, stream: usize) -> c_int {
    let mut device = device();
    if device.capture.as_ref().is_some_and(|(captured, _)| *captured == stream) {
        stop("an event in a capture");
    }
    let of = device.streams.entry(stream).or_default();
    let after = of.done + of.items.len();
    device.events.insert(event, (stream, after));
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaStreamWaitEvent(stream: usize, event: usize, _: u32) -> c_int {
    let mut device = device();
    if let Some(&(of, after)) = device.events.get(&event) {
        device.queue(stream, Item::After(of, after));
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaEventSynchronize(event: usize) -> c_int {
    not_in_a_capture("cudaEventSynchronize");
    let mut device = device();
    if let Some(&(of, after)) = device.events.get(&event) {
        device.wait(of, after);
    }
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaStreamBeginCapture(stream: usize, _: c_int) -> c_int {
    let before = device().capture.replace((stream, vec![]));
    if before.is_some() || stream == 0 {
        stop("a capture in a capture, or of the default stream");
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaStreamIsCapturing(stream: usize, status: *mut c_int) -> c_int {
    let capturing = device().capture.as_ref().is_some_and(|(captured, _)| *captured == stream);
    unsafe { status.write(c_int::from(capturing)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaStreamEndCapture(stream: usize, graph: *mut usize) -> c_int {
    let mut device = device();
    let capture = device.capture.take().filter(|(captured, _)| *captured == stream);
    let (_, nodes) = capture.unwrap_or_else(|| stop("the end of a capture that was not begun"));
    device.graphs.push(Arc::new(nodes));
    unsafe { graph.write(device.graphs.len()) };
    0
}

/// An executable graph is the graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudaGraphInstantiate(executable: *mut usize, graph: usize, _: u64) -> c_int {
    unsafe { executable.write(graph) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cudaGraphLaunch(graph: usize, stream: usize) -> c_int {
    let error = called("cudaGraphLaunch");
    if error == 0 {
        let mut device = device();
        let nodes = device.graphs[graph - 1].clone();
        device.queue(stream, Item::Graph(nodes));
    }
    error
}

// ---- what there is nothing to do for

macro_rules! done {
    ($status:expr => $($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            $status
        }
    )*};
}

done! { 0 => __cudaRegisterFatBinaryEnd __cudaUnregisterFatBinary __cudaRegisterVar cublasDestroy_v2 cublasLtDestroy }

done! {
    device().broken =>
    cudaGetLastError cudaPeekAtLastError cudaFuncSetAttribute cudaFreeHost
    cudaStreamDestroy cudaEventDestroy cudaGraphDestroy cudaGraphExecDestroy
}

macro_rules! handles {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(handle: *mut usize) -> c_int {
            unsafe { handle.write(device().make()) };
            0
        }
    )*};
}

handles! { cudaEventCreate cudaEventCreateWithFlags cublasCreate_v2 cublasLtCreate }

// ---- what the provider is linked with, and does not call here

macro_rules! never {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            stop(concat!("no ", stringify!($name)))
        }
    )*};
}

never! {
    cudaLaunchKernel cuTensorMapEncodeTiled cublasDgeam cublasDgemmBatched cublasDgemmStridedBatched cublasDgemm_v2
    cublasDgetrfBatched cublasDgetriBatched cublasGemmBatchedEx cublasGemmEx cublasGemmStridedBatchedEx
    cublasGetStatusName cublasGetStatusString cublasLtMatmul cublasLtMatmulAlgoConfigSetAttribute
    cublasLtMatmulAlgoGetHeuristic cublasLtMatmulAlgoInit cublasLtMatmulDescCreate cublasLtMatmulDescDestroy
    cublasLtMatmulDescSetAttribute cublasLtMatmulPreferenceCreate cublasLtMatmulPreferenceDestroy
    cublasLtMatmulPreferenceSetAttribute cublasLtMatrixLayoutCreate cublasLtMatrixLayoutDestroy
    cublasLtMatrixLayoutSetAttribute cublasLtMatrixTransform cublasLtMatrixTransformDescCreate
    cublasLtMatrixTransformDescDestroy cublasScopy_v2 cublasSgeam cublasSgemmBatched cublasSgemmStridedBatched
    cublasSgetrfBatched cublasSgetriBatched cublasSscal_v2 cudaEventElapsedTime cudaEventRecordWithFlags
    cudaFreeAsync cudaFuncGetAttributes cudaGetDriverEntryPointByVersion cudaKernelSetAttributeForDevice
    cudaLaunchCooperativeKernel cudaLaunchHostFunc cudaLaunchKernelExC cudaLibraryGetKernel cudaLibraryLoadData
    cudaLibraryUnload cudaMallocFromPoolAsync cudaMallocHost cudaMemPoolCreate cudaMemPoolDestroy
    cudaMemPoolGetAttribute cudaMemPoolSetAttribute cudaMemPoolTrimTo cudaMemcpy2DAsync cudaMemcpyFromSymbol
    cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cudaPointerGetAttributes
}

/// What the process did with the device.
extern "C" fn report() {
    let device = device();
    let count = |name: &str| device.calls.get(name).copied().unwrap_or_default();
    let line = format!(
        "{{\"nodes\": {}, \"captures\": {}, \"replays\": {}, \"to_device\": {}, \"to_host\": {}, \"waits\": {}}}\n",
        device.graphs.first().map_or(0, |nodes| nodes.len()),
        device.graphs.len(),
        count("cudaGraphLaunch"),
        count("copies to the device"),
        count("copies to the host"),
        count("waits"),
    );
    if let Some(path) = std::env::var_os("EMULATED_REPORT") {
        std::fs::write(path, line).unwrap_or_else(|why| eprintln!("emulated CUDA: {why}"));
    }
}
