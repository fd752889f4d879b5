//! From the source of the kernels to what a GPU runs: compiled by NVRTC for the GPU at hand and kept in a cache, or, where
//! there is no NVRTC, by the driver from the PTX in `kernels/sac.ptx`.

use super::kernels::FILES;
use crate::config::Precision;
use cudarc::nvrtc::{result, sys};
use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};

/// The kernels in the assembly that drivers compile by themselves, for compute capability 7.5 and later.
pub const PTX: &str = include_str!("../../kernels/sac.ptx");

/// The oldest NVRTC, by its major version, that is asked to compile.
const OLDEST_NVRTC: i32 = 12;

/// What NVRTC has made.
pub struct Compiled {
    /// A cubin, or PTX.
    pub image: Vec<u8>,
    /// What it had to say, about registers and spills among others.
    pub log: String,
}

/// The source of all kernels in one.
pub fn source() -> String {
    FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
}

/// What compilers are told so that the fused kernels make products of `precision`.
pub fn macros(precision: Precision) -> &'static [&'static str] {
    match precision {
        Precision::F32 => &[],
        Precision::Tf32 => &["-DSAC_TF32"],
    }
}

/// A fingerprint of the present source, together with `more`. Comments, indentation, empty lines and the division into
/// files do not count: compilers make the same of them.
pub fn fingerprint(more: &str) -> String {
    fingerprint_of(FILES.iter().map(|&(_, text)| text), more)
}

fn fingerprint_of<'a>(texts: impl Iterator<Item = &'a str>, more: &str) -> String {
    let mut code: String = texts.map(code_of).collect();
    code.push_str(more);
    format!("{:016x}", fnv_1a(code.as_bytes()))
}

/// The lines of a source without comments, indentation and empty lines. Comments begin with `//`, which no string of the kernels
/// contains.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line).trim());
    lines.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

/// The hash of Fowler, Noll and Vo, in its 64-bit variant 1a: one that stays the same from one build to the next.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The first line of [`PTX`], if it is made of the present source.
pub fn ptx_header() -> String {
    format!(
        "// The kernels of soft-actor-critic for compute capability 7.5, made of source {} by NVRTC.",
        fingerprint("")
    )
}

/// The version of NVRTC, major and minor, if the system has one that is new enough.
pub fn nvrtc() -> Option<(i32, i32)> {
    // SAFETY: it opens libraries by NVRTC's names, which have no constructors that could misbehave.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is there, every version has this function, and it writes two numbers.
    let outcome = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (outcome.result().is_ok() && major >= OLDEST_NVRTC).then_some((major, minor))
}

/// The real architectures that this NVRTC compiles for, as in 75 for `sm_75`.
///
/// # Errors
/// If there is no NVRTC, or it fails.
pub fn architectures() -> Result<Vec<i32>, String> {
    nvrtc().ok_or("there is no NVRTC")?;
    let failed = |error: result::NvrtcError| format!("NVRTC fails: {error}");
    let mut count: c_int = 0;
    // SAFETY: it writes one number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().map_err(failed)?;
    let mut list = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: it writes as many numbers as it has just said.
    unsafe { sys::nvrtcGetSupportedArchs(list.as_mut_ptr()) }.result().map_err(failed)?;
    Ok(list)
}

/// Compiles the kernels for `architecture`, with products of `precision`: `sm_…` to a cubin, `compute_…` to PTX.
///
/// # Errors
/// If there is no NVRTC, or what it says against the source.
pub fn compile(architecture: &str, precision: Precision) -> Result<Compiled, String> {
    nvrtc().ok_or("there is no NVRTC")?;
    let failed = |error: result::NvrtcError| format!("NVRTC fails: {error}");
    let source = CString::new(source()).expect("the source has no zero byte");
    let program = result::create_program(&source, Some(c"sac.cu")).map_err(failed)?;
    let real = architecture.starts_with("sm_");
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    options.extend(macros(precision).iter().map(ToString::to_string));
    if real {
        options.push("--ptxas-options=-v".into());
    }
    // SAFETY: the program lives until it is destroyed below.
    let compiled = unsafe { result::compile_program(program, &options) };
    // SAFETY: as above; the log ends with a zero byte.
    let log = unsafe { result::get_program_log(program) }.map_err(failed)?;
    let log =
        String::from_utf8_lossy(&log.iter().map(|&c| c as u8).collect::<Vec<_>>()).trim_end_matches('\0').to_string();
    let image = compiled.and_then(|()| {
        if !real {
            // SAFETY: as above.
            let ptx = unsafe { result::get_ptx(program) }?;
            return Ok(ptx.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect());
        }
        let mut size = 0;
        // SAFETY: as above; it writes one number.
        unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result()?;
        let mut cubin = vec![0_u8; size];
        // SAFETY: as above; it writes as many bytes as it has just said.
        unsafe { sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    });
    // SAFETY: it is not used any more.
    unsafe { result::destroy_program(program) }.map_err(failed)?;
    let image = image.map_err(|error| format!("NVRTC fails for {architecture}: {error}\n{log}"))?;
    Ok(Compiled { image, log })
}

/// What a GPU of compute capability `major.minor` can load, with products of `precision`, best first, each with where it comes
/// from. They are made one by one, as they are asked for; of tf32 there are none without NVRTC.
pub fn images(major: i32, minor: i32, precision: Precision) -> impl Iterator<Item = (Vec<u8>, String)> {
    let architecture = format!("sm_{major}{minor}");
    let nvrtc = nvrtc();
    let version = nvrtc.map(|(major, minor)| format!("NVRTC {major}.{minor}"));
    let file = version.as_ref().and_then(|version| {
        let name = format!("{}-{architecture}.cubin", fingerprint(&format!("{version}{}", macros(precision).concat())));
        Some(cache_directory()?.join(name))
    });
    let cached = file.as_ref().and_then(|file| Some((kept(file)?, "kernels from the cache".to_string())));
    let fresh = version.map(|version| (architecture, version, file));
    let fresh = fresh.into_iter().filter_map(move |(architecture, version, file)| {
        // An architecture that this NVRTC does not know is left to the driver and the PTX, if there is any.
        let Compiled { image, .. } = compile(&architecture, precision).ok()?;
        if let Some(file) = file {
            // Without a cache the next run compiles once more; that is all.
            let _ = keep(&file, &image);
        }
        Some((image, format!("kernels compiled by {version}")))
    });
    let ptx = (precision == Precision::F32).then_some(PTX).into_iter().map(|ptx| {
        // The driver reads PTX as a string that ends with a zero byte.
        ([ptx.as_bytes(), &[0]].concat(), "kernels compiled by the driver".to_string())
    });
    cached.into_iter().chain(fresh).chain(ptx)
}

/// The image in a file of the cache, if it is what [`keep`] has written there.
fn kept(file: &Path) -> Option<Vec<u8>> {
    let mut image = std::fs::read(file).ok()?;
    let hash = image.split_off(image.len().checked_sub(8)?);
    (hash == fnv_1a(&image).to_le_bytes()).then_some(image)
}

/// Writes an image, and its hash after it, to a file that is either whole or not there.
fn keep(file: &Path, image: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, [image, &fnv_1a(image).to_le_bytes()].concat())
        .and_then(|()| std::fs::rename(&temporary, file))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
}

/// Where compiled kernels are kept: `soft-actor-critic` in the user's cache directory.
fn cache_directory() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = of("XDG_CACHE_HOME").or_else(|| of("LOCALAPPDATA")).or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(base.join("soft-actor-critic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_leave_the_fingerprint_and_code_does_not() {
        let of = |text: &str| fingerprint_of([text].into_iter(), "");
        let plain = of("float f(float x) {\n    return 2.0f / x;\n}\n");
        assert_eq!(plain, of("// Doubles 1/x.\n\nfloat f(float x) {  // [1]\n  // Now.\n\n  return 2.0f / x;\n}"));
        assert_eq!(plain, fingerprint_of(["float f(float x) {\n", "// Next.\nreturn 2.0f / x;\n}"].into_iter(), ""));
        assert_ne!(plain, of("float f(float x) {\n    return 2.0f * x;\n}\n"));
        assert_ne!(plain, of("float f(float x) { return 2.0f / x;\n}\n"));
        assert_ne!(plain, fingerprint_of(["float f(float x) {\n    return 2.0f / x;\n}\n"].into_iter(), "12.0"));
    }

    #[test]
    fn kernels_have_no_other_comments_and_no_strings_that_look_like_one() {
        for (name, text) in FILES {
            assert!(!text.contains("/*"), "{name}");
            let in_string = |line: &str| line.split("//").next().is_some_and(|code| code.matches('"').count() % 2 == 1);
            assert!(!text.lines().any(in_string), "{name}");
        }
    }
}
