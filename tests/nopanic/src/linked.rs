unsafe extern "C" {
    /// Nobody defines it: whoever may panic does not link.
    fn something_here_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never linked.
    unsafe { something_here_can_panic() }
}

#[link(name = "c")]
unsafe extern "C" {}
