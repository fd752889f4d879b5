//! The kernels as NVRTC compiles them, which needs NVRTC but no GPU, and the PTX that is made of them.
#![cfg(feature = "cuda")]

use soft_actor_critic::config::Precision;
use soft_actor_critic::gpu::compile::{PTX, architectures, compile, nvrtc, ptx_header};
use soft_actor_critic::gpu::kernels::KERNELS;
use std::collections::BTreeSet;
use std::path::Path;

/// Whether there is NVRTC; if not, says so, or fails where no test may be skipped.
fn has_nvrtc() -> bool {
    let version = nvrtc();
    match version {
        Some((major, minor)) => println!("NVRTC {major}.{minor}"),
        None => {
            println!(
                "skipped: there is no NVRTC; `pip install nvidia-cuda-nvrtc-cu12`, and name its lib in LD_LIBRARY_PATH"
            );
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        }
    }
    version.is_some()
}

/// For the oldest GPUs, two between, and the newest that this NVRTC knows: every kernel, without a register in memory.
#[test]
fn kernels_compile_for_every_generation_without_spills() {
    if !has_nvrtc() {
        return;
    }
    let newest = *architectures().expect("NVRTC knows them").iter().max().expect("it knows some");
    let f32 = BTreeSet::from([75, 80, 90, newest]).into_iter().map(|architecture| (architecture, Precision::F32));
    let tf32 = BTreeSet::from([80, 90, newest]).into_iter().map(|architecture| (architecture, Precision::Tf32));
    for (architecture, precision) in f32.chain(tf32) {
        let compiled = compile(&format!("sm_{architecture}"), precision).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(!compiled.log.contains("warning"), "sm_{architecture}: {}", compiled.log);
        let mut seen = 0;
        for (kernel, _) in KERNELS {
            let about = compiled.log.split(&format!("Compiling entry function '{kernel}'")).nth(1);
            let about = about.unwrap_or_else(|| panic!("sm_{architecture} has no {kernel}: {}", compiled.log));
            let about = about.split("Compiling entry function").next().expect("a split has a first part");
            // A line for the kernel and one for each function that it calls.
            let mut frames = about.lines().filter(|line| line.contains("bytes stack frame")).peekable();
            assert!(frames.peek().is_some(), "sm_{architecture}: nothing is said of {kernel}: {about}");
            for frame in frames {
                let frame = frame.trim_start_matches(|c: char| !c.is_ascii_digit());
                let none = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
                assert!(frame == none, "sm_{architecture}: {kernel} keeps registers in memory: {about}");
            }
            seen += 1;
        }
        println!("sm_{architecture}, {precision}: {seen} kernels, cubin of {} bytes", compiled.image.len());
    }
}

/// The PTX that ships is made of the kernels as they are. `SAC_WRITE_PTX=1` makes it anew; an old NVRTC is to be taken for
/// it, because a driver reads no PTX that is newer than itself.
#[test]
fn the_shipped_ptx_is_made_of_these_kernels() {
    if std::env::var_os("SAC_WRITE_PTX").is_some() {
        let compiled = compile("compute_75", Precision::F32).unwrap_or_else(|problem| panic!("{problem}"));
        let ptx = String::from_utf8(compiled.image).expect("PTX is text");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/sac.ptx");
        std::fs::write(file, format!("{}\n{}\n", ptx_header(), ptx.trim())).expect("the file can be written");
        println!("kernels/sac.ptx is written; run the tests again");
        return;
    }
    assert!(
        PTX.starts_with(&ptx_header()),
        "kernels/sac.ptx is stale; run `SAC_WRITE_PTX=1 cargo test --test nvrtc` with NVRTC 12.0"
    );
    for (kernel, _) in KERNELS {
        assert!(PTX.contains(&format!(".visible .entry {kernel}(")), "kernels/sac.ptx has no {kernel}");
    }
}

/// Tensor cores make the products of every fused kernel that has any, and of no other; and none without tf32.
#[test]
fn tensor_cores_make_the_products_in_tf32() {
    if !has_nvrtc() {
        return;
    }
    let of_products = [
        "fused_forward",
        "fused_target",
        "fused_critic_loss",
        "fused_evaluate",
        "fused_action_gradient",
        "fused_policy_loss",
    ];
    for precision in [Precision::F32, Precision::Tf32] {
        let compiled = compile("compute_80", precision).unwrap_or_else(|problem| panic!("{problem}"));
        let ptx = String::from_utf8(compiled.image).expect("PTX is text");
        for part in ptx.split(".visible .entry ").skip(1) {
            let name = part.split('(').next().expect("a split has a first part");
            let expected = precision == Precision::Tf32 && of_products.contains(&name);
            assert_eq!(part.contains("mma.sync.aligned.m16n8k8"), expected, "{name} in {precision}");
        }
    }
}

/// What is wrong in the source is told.
#[test]
fn an_architecture_that_is_none_is_an_error() {
    if !has_nvrtc() {
        return;
    }
    let problem = compile("sm_1", Precision::F32).err().expect("there is no such thing");
    assert!(problem.contains("sm_1"), "{problem}");
}
