//! ONNX Runtime's errors as sentences for the user.

use anyhow::anyhow;

/// An error of ONNX Runtime as one sentence for the user: what failed on the device, and what to do. Other errors are
/// returned unchanged.
pub(crate) fn user_message(error: anyhow::Error) -> anyhow::Error {
    translate(&format!("{error:#}")).map_or(error, |sentence| anyhow!(sentence))
}

/// The sentence for a text of ONNX Runtime's CUDA provider or allocators; `None` for other texts.
fn translate(text: &str) -> Option<String> {
    const SETUP: &str = "run `trainer setup --cuda`";
    const DRIVER: &str = "CUDA 13 needs NVIDIA's driver 580 or newer";
    let between = |start, end| Some(text.split_once(start)?.1.split_once(end)?.0);
    let missing = between("with error: ", ": cannot open shared object file")
        .or(between("which depends on \"", "\" which is missing"));
    if let Some(library) = missing {
        return Some(match library {
            "libcuda.so.1" | "nvcuda.dll" => {
                format!("no NVIDIA driver found, whose {library} is missing; {DRIVER}")
            }
            _ => format!("{library}, which CUDA's provider needs, not found; {SETUP}"),
        });
    }
    if text.contains("execution provider is not enabled in this build") {
        return Some(format!("this ONNX Runtime is built without CUDA; where there is an NVIDIA GPU, {SETUP}"));
    }
    let no_memory = ["Failed to allocate memory for requested buffer", "smaller than requested bytes", "ALLOC_FAILED"];
    if no_memory.iter().any(|words| text.contains(words)) {
        return Some("the device is out of memory; use a smaller --batch or end other programs that use it".into());
    }
    if let Some((library, failure)) = text.split_once(" failure ")
        && (library.ends_with("CUDA") || library.ends_with("CUBLAS"))
    {
        let (code, rest) = failure.split_once(": ")?;
        let meaning = rest.split(" ;").next()?;
        return Some(match code {
            "2" => {
                "out of GPU memory; use a smaller --batch or end other programs that use it; `nvidia-smi` shows them"
                    .into()
            }
            "35" => format!("NVIDIA's driver is too old; {DRIVER}, and `nvidia-smi` tells which is here"),
            "46" => "the GPU is busy, or another process has it to itself; `nvidia-smi` tells which".into(),
            "100" => {
                "no GPU found; `nvidia-smi` tells which the driver sees, CUDA_VISIBLE_DEVICES may hide some".into()
            }
            "209" => {
                "the GPU is of a generation that this ONNX Runtime has no code for; --device cpu does without".into()
            }
            "803" => "NVIDIA's driver and its libraries are of two versions; restart the machine".into(),
            _ => format!("the GPU failed or went away ({code}: {meaning}); `nvidia-smi` tells whether it is there"),
        });
    }
    Some(text.lines().next()?.rsplit_once(" : FAIL : ")?.1.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_errors_become_sentences_with_a_way_out() {
        let failed = |words: &str| {
            format!(
                "Non-zero status code returned while running Gemm node. Name:'n' Status Message: {words} ; GPU=0 ; hostname=h"
            )
        };
        let load = |what: &str| {
            format!(
                "bridge.cc:2195 Get [ONNXRuntimeError] : 1 : FAIL : Failed to load library /a/libp.so with error: {what}"
            )
        };
        let cases = [
            (failed("CUDA failure 2: out of memory"), "out of GPU memory; use a smaller --batch"),
            (failed("CUDA failure 35: CUDA driver version is insufficient"), "driver 580 or newer"),
            (failed("CUDA failure 46: all CUDA-capable devices are busy or unavailable"), "another process has it"),
            (failed("CUDA failure 100: no CUDA-capable device is detected"), "no GPU found"),
            (failed("CUDA failure 209: no kernel image is available"), "no code for"),
            (failed("CUDA failure 803: system has unsupported driver combination"), "restart the machine"),
            (failed("CUDA failure 700: an illegal address"), "the GPU failed or went away (700: an illegal address)"),
            (failed("CUDA failure 719: unspecified launch failure"), "(719: unspecified launch failure)"),
            (failed("CUDA failure 999: unknown error"), "(999: unknown error)"),
            (failed("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED"), "(13: CUBLAS_STATUS_EXECUTION_FAILED)"),
            (failed("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), "out of memory; use a smaller --batch"),
            ("bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 64".into(), "out of memory"),
            ("Available memory of 8 is smaller than requested bytes of 64".into(), "out of memory"),
            (load("libcublas.so.13: cannot open shared object file: No such file"), "libcublas.so.13, which"),
            (load("libcurand.so.10: cannot open shared object file: No such file"), "run `trainer setup --cuda`"),
            (load("libcuda.so.1: cannot open shared object file: No such file"), "no NVIDIA driver found"),
            (
                "Error loading \"p.dll\" which depends on \"nvcuda.dll\" which is missing. (126)".into(),
                "no NVIDIA driver",
            ),
            ("CUDA execution provider is not enabled in this build.".into(), "is built without CUDA; where"),
            ("x.cc:7 [ONNXRuntimeError] : 1 : FAIL : odd\n#2 stack".into(), "odd"),
        ];
        for (text, expected) in cases {
            let words = user_message(anyhow!(text.clone())).to_string();
            assert!(words.contains(expected) && !words.contains(['\n', '[']), "{text}: {words}");
        }
        assert_eq!(
            user_message(anyhow!("no such file").context("--data")).to_string(),
            "--data",
            "an error of another kind"
        );
    }
}
