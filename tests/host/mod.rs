//! A [`Gpu`] without a GPU: the kernels of `kernels/`, compiled by a C++ compiler against `shim.cpp`.

use soft_actor_critic::config::Precision;
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::compile::macros;
use soft_actor_critic::gpu::kernels::{KERNELS, Launch, TILE};
use soft_actor_critic::gpu::{Buffer, Gpu, Graph, lay_out};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

type Kernel = unsafe extern "C" fn(*const c_void);
type RunKernel = unsafe extern "C" fn(Kernel, *const u64, *const u32, u64) -> bool;

/// `Registration` of the shim.
#[repr(C)]
struct Registration {
    _name: *const c_char,
    run: Kernel,
    size: usize,
}

/// `ProductOfTiles` of the shim.
#[repr(C)]
struct ProductOfTiles {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    tiles: u32,
    unused: u32,
}

/// The compiled kernels.
struct Library {
    precision: Precision,
    run: RunKernel,
    product_of_tiles: Kernel,
    kernels: HashMap<&'static str, Kernel>,
    /// Bytes of each kernel's arguments, by its name, and of `Status` and `PendulumState`.
    sizes: HashMap<&'static str, usize>,
    _library: libloading::Library,
}

/// Double words behind each buffer.
const GUARD: usize = 32;
/// What lies there: a NaN, so that whoever reads it shows, and a signalling one, which no computation gives.
const BEHIND: u32 = 0x7fa0_0001;

/// What runs the kernels on the CPU, one learner's worth. Launches come one at a time, even from several learners.
pub struct Host {
    library: &'static Library,
    memory: Vec<Vec<u64>>,
    /// Each buffer with its length in words.
    buffers: Vec<(Buffer, usize)>,
    graphs: Vec<Vec<Launch>>,
    launches: u64,
    limit_words: usize,
    fails_at: Option<u64>,
}

impl Host {
    /// Compiles the kernels, the first time; none, with a word about it, where there is no C++ compiler.
    pub fn new() -> Option<Self> {
        static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
        LIBRARY.get_or_init(|| load(Precision::F32)).as_ref().map(Self::of)
    }

    /// As [`Self::new`], with products in tf32.
    #[allow(dead_code, reason = "not every test file asks for it")]
    pub fn tf32() -> Option<Self> {
        static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
        LIBRARY.get_or_init(|| load(Precision::Tf32)).as_ref().map(Self::of)
    }

    fn of(library: &'static Library) -> Self {
        let (memory, buffers, graphs) = (Vec::new(), Vec::new(), Vec::new());
        Self { library, memory, buffers, graphs, launches: 0, limit_words: usize::MAX, fails_at: None }
    }

    /// With so little memory.
    #[allow(dead_code, reason = "not every test file asks for it")]
    pub fn with_memory(mut self, limit_words: usize) -> Self {
        self.limit_words = limit_words;
        self
    }

    /// AᵀB by the functions that fused kernels use for it, for A and B of so many tiles each, one below the other.
    #[allow(dead_code, reason = "not every test file asks for it")]
    pub fn product_of_tiles(&self, a: &[f32], b: &[f32]) -> Vec<f32> {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(a.len() == b.len() && a.len().is_multiple_of(TILE * TILE));
        let tiles = u32::try_from(a.len() / (TILE * TILE)).expect("they are few");
        let mut c = vec![f32::NAN; TILE * TILE];
        let arguments = ProductOfTiles { a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), tiles, unused: 0 };
        let (kernel, at) = (self.library.product_of_tiles, (&raw const arguments).cast());
        // SAFETY: the kernel takes this struct, and what it points to is as long as it says.
        assert!(unsafe { (self.library.run)(kernel, at, [1, 1, 1].as_ptr(), 1) });
        c
    }

    fn reserve(&mut self, words: usize) -> Buffer {
        let mut memory = vec![u64::from(BEHIND) << 32 | u64::from(BEHIND); words.div_ceil(2) + GUARD];
        let at = Buffer(memory.as_mut_ptr() as u64);
        self.memory.push(memory);
        at
    }

    /// With a device that fails at this launch and ever after.
    #[allow(dead_code, reason = "not every test file asks for it")]
    pub fn that_fails_at(mut self, launch: u64) -> Self {
        self.fails_at = Some(launch);
        self
    }

    /// Bytes of each kernel's arguments as C++ lays them out, and of `Status` and `PendulumState` by the names `status` and `pendulum`.
    #[allow(dead_code, reason = "not every test file asks for it")]
    pub fn sizes(&self) -> &HashMap<&'static str, usize> {
        &self.library.sizes
    }
}

/// Compiles a file of this folder, with products in `precision`, to a shared library called `name` in a new folder of its own,
/// and returns its path; none, with a word about it, where there is no C++ compiler.
pub fn compile(file: &str, name: &str, precision: Precision) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!(
            "skipped: kernels on the CPU, because there is no C++ compiler {compiler}; install one, or name it in CXX"
        );
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{file}-{precision}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let built = folder.join(name);
    let output = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-fno-strict-aliasing",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-Werror",
            "-shared",
            "-fPIC",
        ])
        .args(macros(precision))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host").join(file))
        .arg("-o")
        .arg(&built)
        .output()
        .expect("it has just been run");
    assert!(output.status.success(), "the kernels do not compile: {}", String::from_utf8_lossy(&output.stderr));
    Some(built)
}

impl Drop for Host {
    /// Nothing may have been written behind a buffer.
    fn drop(&mut self) {
        for &(at, words) in &self.buffers {
            // SAFETY: the memory is still there, with a guard behind the buffer, and any word of it is a number.
            let behind = unsafe { std::slice::from_raw_parts(at.at(words).0 as *const u32, 2 * GUARD) };
            let whole = behind.iter().all(|&word| word == BEHIND);
            assert!(whole || std::thread::panicking(), "a kernel has written behind a buffer of {words} words");
        }
    }
}

fn load(precision: Precision) -> Option<Library> {
    let built = compile("shim.cpp", "libkernels.so", precision)?;
    // SAFETY: the library was made from the sources of this project, and what it has is of the types that are asked for.
    unsafe {
        let library = libloading::Library::new(&built).expect("it has just been built");
        let _ = std::fs::remove_dir_all(built.parent().expect("it has its own folder"));
        let find = library.get::<unsafe extern "C" fn(*const c_char) -> *const Registration>("find_kernel");
        let find = find.expect("the shim has it");
        let kernel = |name: &'static str| {
            let c_name = CString::new(name).expect("names of kernels have no zero byte");
            let registration = find(c_name.as_ptr()).as_ref();
            (name, registration.unwrap_or_else(|| panic!("there is no kernel {name}")))
        };
        let kernels: Vec<_> = KERNELS.iter().map(|&(name, _)| kernel(name)).collect();
        let status = library.get::<unsafe extern "C" fn() -> usize>("size_of_status").expect("the shim has it")();
        let pendulum = library.get::<unsafe extern "C" fn() -> usize>("size_of_pendulum").expect("the shim has it")();
        let sizes = kernels.iter().map(|(name, registration)| (*name, registration.size));
        Some(Library {
            precision,
            product_of_tiles: kernel("product_of_tiles").1.run,
            run: *library.get::<RunKernel>("run_kernel").expect("the shim has it"),
            sizes: sizes.chain([("status", status), ("pendulum", pendulum)]).collect(),
            kernels: kernels.iter().map(|(name, registration)| (*name, registration.run)).collect(),
            _library: library,
        })
    }
}

/// The shim has one set of fibers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Gpu for Host {
    fn name(&self) -> String {
        "kernels on the CPU".into()
    }

    fn precision(&self) -> Precision {
        self.library.precision
    }

    fn allocate(&mut self, words: usize) -> Result<Buffer, Error> {
        if words > self.limit_words {
            return Err(Error::Device(format!("it has not {words} words of memory left")));
        }
        self.limit_words -= words;
        let buffer = self.reserve(words);
        // SAFETY: there are at least so many words.
        unsafe { (buffer.0 as *mut u32).write_bytes(0, words) };
        self.buffers.push((buffer, words));
        Ok(buffer)
    }

    /// Each copy of each buffer has what lies behind it guarded.
    fn allocate_copies(&mut self, lengths: &[usize], copies: usize) -> Result<(Vec<Buffer>, usize), Error> {
        let (offsets, step) = lay_out(lengths, 2 * GUARD);
        let first = self.allocate(step.saturating_mul(copies))?;
        // SAFETY: it has just been made with so many words.
        unsafe { std::slice::from_raw_parts_mut(first.0 as *mut u32, step * copies) }.fill(BEHIND);
        let buffers: Vec<_> = offsets.into_iter().map(|offset| first.at(offset)).collect();
        for (buffer, &words) in buffers.iter().zip(lengths) {
            for copy in 0..copies {
                let buffer = buffer.at(copy * step);
                // SAFETY: it lies within what has just been made.
                unsafe { (buffer.0 as *mut u32).write_bytes(0, words) };
                self.buffers.push((buffer, words));
            }
        }
        Ok((buffers, step))
    }

    unsafe fn upload(&mut self, to: Buffer, words: &[u32]) -> Result<(), Error> {
        // SAFETY: buffers are memory of this process, and callers copy within them.
        unsafe { (to.0 as *mut u32).copy_from_nonoverlapping(words.as_ptr(), words.len()) };
        Ok(())
    }

    unsafe fn download(&mut self, from: Buffer, words: &mut [u32]) -> Result<(), Error> {
        // SAFETY: as for `upload`.
        unsafe { words.as_mut_ptr().copy_from_nonoverlapping(from.0 as *const u32, words.len()) };
        Ok(())
    }

    unsafe fn run(&mut self, launches: &[Launch]) -> Result<(), Error> {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for Launch { kernel, grid, arguments } in launches {
            self.launches += 1;
            if self.fails_at.is_some_and(|launch| self.launches >= launch) {
                return Err(Error::Device(format!("launching the kernel {kernel} failed")));
            }
            // SAFETY: arguments are what the kernel takes; a test compares their sizes.
            let well = unsafe {
                (self.library.run)(self.library.kernels[kernel], arguments.as_ptr(), grid.as_ptr(), self.launches)
            };
            assert!(well, "threads of a block of {kernel} end while others wait at a barrier");
        }
        Ok(())
    }

    unsafe fn capture(&mut self, launches: Vec<Launch>) -> Result<Graph, Error> {
        self.graphs.push(launches);
        Ok(Graph(self.graphs.len() - 1))
    }

    fn run_graph(&mut self, Graph(number): Graph) -> Result<(), Error> {
        let launches = std::mem::take(&mut self.graphs[number]);
        // SAFETY: they were recorded under that promise.
        let outcome = unsafe { self.run(&launches) };
        self.graphs[number] = launches;
        outcome
    }
}
