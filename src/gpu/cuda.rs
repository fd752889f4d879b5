//! An NVIDIA GPU behind [`Gpu`], through its driver.
//!
//! The driver is looked for when a GPU is opened; nothing of CUDA is needed before. Launches that are recorded become a CUDA
//! graph.

use super::compile;
use super::kernels::{KERNELS, Launch, THREADS};
use super::{Buffer, Gpu, Graph};
use crate::config::Precision;
use crate::error::Error;
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DriverError, result};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// The oldest driver, by the version of CUDA that it supports, times 1000.
const OLDEST_DRIVER: i32 = 12_000;
/// The oldest GPU, by its compute capability: the one that [`compile::PTX`] is made for.
const OLDEST_GPU: (i32, i32) = (7, 5);
/// The oldest GPU that has tf32.
const OLDEST_TF32: (i32, i32) = (8, 0);

/// Words of the page-locked memory that uploads go through.
const STAGING: usize = 1 << 18;

/// An NVIDIA GPU with the kernels of this crate.
pub struct Cuda {
    name: String,
    precision: Precision,
    /// Page-locked memory, which the device reads by itself, and how many words of it still wait for that.
    staging: *mut u32,
    staged: usize,
    functions: HashMap<&'static str, sys::CUfunction>,
    graphs: Vec<CudaGraph>,
    allocations: Vec<sys::CUdeviceptr>,
    module: sys::CUmodule,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

// SAFETY: handles of the driver may be used from any thread that the context is bound to, which every function sees to,
// by one at a time, which `&mut self` sees to.
unsafe impl Send for Cuda {}

impl Cuda {
    /// The GPU of this number, with the kernels loaded, those that are fused with products of `precision`.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no driver, an old one, no such device, an old one, no NVRTC for tf32, or if it fails.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self, Error> {
        let device = |problem: String| Error::Device(problem);
        // SAFETY: it opens libraries by the driver's names, which have no constructors that could misbehave.
        if !unsafe { sys::is_culib_present() } {
            return Err(device("there is no NVIDIA driver; install it, or say --device cpu".into()));
        }
        result::init().map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => device("the driver finds no device; say --device cpu".into()),
            _ => failed("starting the driver")(error),
        })?;
        let mut version = 0;
        // SAFETY: every driver has this function, and it writes one number.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }
            .result()
            .map_err(failed("asking for the driver's version"))?;
        if version < OLDEST_DRIVER {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(device(format!(
                "its driver supports CUDA {major}.{minor} at most; update it to one for CUDA 12 (525 or later)"
            )));
        }
        let count = result::device::get_count().map_err(failed("counting devices"))?;
        let count = usize::try_from(count).unwrap_or(0);
        if ordinal >= count {
            let known = (0..count).map(|i| format!("cuda:{i}, ")).collect::<String>();
            return Err(device(format!(
                "there is no device {ordinal} among its {count}; say --device {known}cpu or auto"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(failed("opening the device"))?;
        // Everything happens in one stream, in order; a graph cannot be captured with events around.
        // SAFETY: no other stream ever uses what this one does.
        unsafe { context.disable_event_tracking() };
        let attribute = |which| context.attribute(which).map_err(failed("asking for the compute capability"));
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let model = context.name().map_err(failed("asking for the device's name"))?;
        if (major, minor) < OLDEST_GPU {
            return Err(device(format!(
                "{model} is of compute capability {major}.{minor}, below 7.5; say --device cpu"
            )));
        }
        if precision == Precision::Tf32 && (major, minor) < OLDEST_TF32 {
            return Err(device(format!(
                "{model} is of compute capability {major}.{minor}, and tf32 takes 8.0; say --precision f32"
            )));
        }
        if precision == Precision::Tf32 && compile::nvrtc().is_none() {
            return Err(device(
                "tf32 takes NVRTC, and there is none; install it (pip install nvidia-cuda-nvrtc-cu12, its lib in \
                 LD_LIBRARY_PATH), or say --precision f32"
                    .into(),
            ));
        }
        let stream = context.new_stream().map_err(failed("making a stream"))?;
        // SAFETY: the context is current; the memory is freed when `cuda` is.
        let staging = unsafe { result::malloc_host(4 * STAGING, 0) }.map_err(failed("reserving page-locked memory"))?;
        let (module, origin) = load(compile::images(major, minor, precision))?;
        let mut cuda = Self {
            name: format!("{model}, {origin}"),
            precision,
            staging: staging.cast(),
            staged: 0,
            functions: HashMap::new(),
            graphs: Vec::new(),
            allocations: Vec::new(),
            module,
            stream,
            context,
        };
        for &(kernel, _) in KERNELS {
            let name = CString::new(kernel).expect("names of kernels have no zero byte");
            // SAFETY: the module is loaded for as long as `cuda` lives.
            let function = unsafe { result::module::get_function(cuda.module, name) };
            let function = function.map_err(failed("finding a kernel"))?;
            // A driver that loads kernels lazily loads this one now, and not while a graph is being captured.
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
            // SAFETY: the function has just been found.
            unsafe { result::function::get_function_attribute(function, attribute) }
                .map_err(failed("loading a kernel"))?;
            cuda.functions.insert(kernel, function);
        }
        Ok(cuda)
    }

    /// Makes the context current in this thread.
    fn bind(&self) -> Result<(), Error> {
        self.context.bind_to_thread().map_err(failed("using the device"))
    }

    /// Waits until all is done; what was staged has then been read.
    fn wait(&mut self, what: &str) -> Result<(), Error> {
        self.stream.synchronize().map_err(|error| failed(what)(error))?;
        self.staged = 0;
        Ok(())
    }

    fn launch(&self, Launch { kernel, grid, arguments }: &Launch) -> Result<(), Error> {
        let (function, mut parameter) = (self.functions[kernel], arguments.as_ptr().cast_mut().cast::<c_void>());
        let ([x, y, z], stream) = (*grid, self.stream.cu_stream());
        let parameters = std::slice::from_mut(&mut parameter);
        // SAFETY: the kernel takes one struct, of which `arguments` has the bytes (the tests compare their sizes), and the
        // driver copies it before it returns. What it points to is as the caller of `run` or `record` promises.
        let outcome =
            unsafe { result::launch_kernel(function, (x, y, z), (THREADS as u32, 1, 1), 0, stream, parameters) };
        outcome.map_err(|error| failed(&format!("launching the kernel {kernel}"))(error))
    }
}

/// Loads the first image that the driver accepts, and says where it came from.
fn load(images: impl Iterator<Item = (Vec<u8>, String)>) -> Result<(sys::CUmodule, String), Error> {
    let mut refused = None;
    for (image, origin) in images {
        // SAFETY: an image is a cubin, which tells its own length, or PTX that ends with a zero byte.
        match unsafe { result::module::load_data(image.as_ptr().cast()) } {
            Ok(module) => return Ok((module, origin)),
            Err(error) => refused = Some(error),
        }
    }
    let problem = refused.map_or("NVRTC does not compile the kernels for it".into(), |error| {
        format!("the driver refuses the kernels ({:?})", error.0)
    });
    Err(Error::Device(format!("{problem}; install NVRTC of its own CUDA version, or update the driver")))
}

/// An error of the driver as one of ours.
fn failed(what: &str) -> impl Fn(DriverError) -> Error + use<'_> {
    move |error| Error::Device(format!("{what} failed ({:?}); begin again, or say --device cpu", error.0))
}

impl Gpu for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn allocate(&mut self, words: usize) -> Result<Buffer, Error> {
        self.bind()?;
        let bytes = words.max(1).checked_mul(4).ok_or_else(|| Error::Device("it has no memory of that size".into()))?;
        // SAFETY: the context is current; the memory is freed when `self` is.
        let at = unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::Device(format!(
                "it has not {} MiB of memory left; free it, or say --device cpu",
                bytes.div_ceil(1 << 20)
            )),
            _ => failed("reserving memory")(error),
        })?;
        self.allocations.push(at);
        // SAFETY: it has just been allocated with so many bytes.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }.map_err(failed("clearing memory"))?;
        Ok(Buffer(at))
    }

    unsafe fn upload(&mut self, to: Buffer, words: &[u32]) -> Result<(), Error> {
        self.bind()?;
        for (i, piece) in words.chunks(STAGING).enumerate() {
            if self.staged + piece.len() > STAGING {
                self.wait("copying to the device")?;
            }
            // SAFETY: `staging` has room for the piece behind what still waits there, nobody writes to it before
            // [`Self::wait`], and the caller promises room on the device.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(self.staging.add(self.staged), piece.len());
                staged.copy_from_slice(piece);
                result::memcpy_htod_async(to.at(i * STAGING).0, staged, self.stream.cu_stream())
            }
            .map_err(failed("copying to the device"))?;
            self.staged += piece.len();
        }
        Ok(())
    }

    unsafe fn download(&mut self, from: Buffer, words: &mut [u32]) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: the caller promises so many words on the device, and `words` is written before this function returns.
        unsafe { result::memcpy_dtoh_async(words, from.0, self.stream.cu_stream()) }
            .map_err(failed("copying from the device"))?;
        self.wait("copying from the device")
    }

    unsafe fn run(&mut self, launches: &[Launch]) -> Result<(), Error> {
        self.bind()?;
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    unsafe fn capture(&mut self, launches: Vec<Launch>) -> Result<Graph, Error> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.stream.begin_capture(mode).map_err(failed("capturing kernels"))?;
        let launched = launches.iter().try_for_each(|launch| self.launch(launch));
        // A capture that has begun has to end, whatever became of it.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed("capturing kernels"));
        launched?;
        let graph = graph?.ok_or_else(|| Error::Device("capturing kernels gave nothing; say --device cpu".into()))?;
        self.graphs.push(graph);
        Ok(Graph(self.graphs.len() - 1))
    }

    fn run_graph(&mut self, Graph(number): Graph) -> Result<(), Error> {
        self.graphs[number].launch().map_err(failed("launching kernels"))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // What fails here fails because the device has; there is nobody left to tell.
        let _ = self.context.bind_to_thread().and_then(|()| self.stream.synchronize());
        self.graphs.clear();
        for &at in &self.allocations {
            // SAFETY: it was allocated here, and no kernel runs any more.
            let _ = unsafe { result::free_sync(at) };
        }
        // SAFETY: it was allocated here, and nothing is copied any more.
        let _ = unsafe { result::free_host(self.staging.cast()) };
        // SAFETY: it was loaded here, and its functions go with `self`.
        let _ = unsafe { result::module::unload(self.module) };
    }
}
