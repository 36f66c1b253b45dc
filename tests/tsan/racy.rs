//! Two threads write to one variable without a lock: ThreadSanitizer must report this program, or it sees nothing in others.

static mut SHARED: u64 = 0;

fn main() {
    let write = || (0..1000).for_each(|i| unsafe { (&raw mut SHARED).write_volatile(i) });
    let threads = [std::thread::spawn(write), std::thread::spawn(write)];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
