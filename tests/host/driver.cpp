// As much of an NVIDIA driver as `src/gpu/cuda.rs` asks for, over the shim: it takes the program through its path for GPUs on a
// machine without one. FAKE_CUDA in the environment names what is to be wrong, and with which number, as in `launch 100`.

#include "shim.cpp"

#include <mutex>
#include <vector>

typedef int CUresult;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
};

struct Launched {
    const Registration* kernel;
    unsigned grid[3];
    std::vector<char> arguments;
};

typedef std::vector<Launched> Graph;

// The shim has one set of fibers, and copies are made in order.
static std::mutex one_at_a_time;

// A copy to the device that has been asked for: it reads its source late, as a real one may.
struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};

static std::vector<Copy> copies;

static void make_copies() {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    for (const Copy& copy : copies) memcpy(copy.to, copy.from, copy.bytes);
    copies.clear();
}

static bool initialized;
static thread_local Graph* captured;
static size_t launches, allocated;
static bool broken;

// The number after the fault `name`, if that is the one to show; 0 otherwise.
static size_t fault(const char* name) {
    const char* wished = getenv("FAKE_CUDA");
    const size_t length = strlen(name);
    if (!wished || strncmp(wished, name, length) != 0) return 0;
    return wished[length] ? strtoull(wished + length, nullptr, 10) : 1;
}

static CUresult launch(const Launched& l) {
    make_copies();
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (broken || ++launches == fault("launch")) {
        broken = true;
        return ILLEGAL_ADDRESS;
    }
    return run_kernel(l.kernel->run, l.arguments.data(), l.grid, launches) ? SUCCESS : ILLEGAL_ADDRESS;
}

extern "C" {
CUresult cuInit(unsigned) {
    if (fault("no-device")) return NO_DEVICE;
    initialized = true;
    return SUCCESS;
}
CUresult cuDriverGetVersion(int* version) {
    *version = fault("old-driver") ? 11040 : 12000;
    return SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
    *count = 2;
    return initialized ? SUCCESS : NOT_INITIALIZED;
}
CUresult cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < 2 ? SUCCESS : INVALID_DEVICE;
}
CUresult cuDeviceGetName(char* name, int length, int device) {
    snprintf(name, length, "Fake GPU %d", device);
    return SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = 0;
    // The major and the minor number of the compute capability.
    if (attribute == 75) *value = fault("old-device") ? 6 : fault("turing") ? 7 : 9;
    if (attribute == 76) *value = fault("turing") ? 5 : 0;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &initialized;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
CUresult cuCtxGetCurrent(void** context) {
    *context = &initialized;
    return SUCCESS;
}
CUresult cuCtxSetCurrent(void*) { return SUCCESS; }
CUresult cuStreamCreate(void** stream, unsigned) {
    *stream = &launches;
    return SUCCESS;
}
CUresult cuStreamDestroy_v2(void*) { return SUCCESS; }
CUresult cuStreamSynchronize(void*) {
    make_copies();
    return broken ? ILLEGAL_ADDRESS : SUCCESS;
}
CUresult cuModuleLoadData(void** module, const void* image) {
    if (fault("refuse")) return INVALID_IMAGE;
    // A cubin is an ELF file; all else must be our PTX, ending with a zero byte.
    const char* text = static_cast<const char*>(image);
    const bool cubin = memcmp(text, "\x7f" "ELF", 4) == 0;
    if (cubin && fault("old-cubin")) return INVALID_IMAGE;
    if (!cubin && !strstr(text, ".version 8.0")) return INVALID_IMAGE;
    *module = &initialized;
    return SUCCESS;
}
CUresult cuModuleUnload(void*) { return SUCCESS; }
CUresult cuModuleGetFunction(const Registration** function, void*, const char* name) {
    *function = find_kernel(name);
    return *function ? SUCCESS : NOT_FOUND;
}
CUresult cuFuncGetAttribute(int* value, int, const Registration*) {
    *value = 32;
    return SUCCESS;
}
CUresult cuMemAlloc_v2(void** at, size_t bytes) {
    allocated += bytes;
    if (fault("memory") && allocated > fault("memory")) return OUT_OF_MEMORY;
    *at = malloc(bytes);
    if (!*at) return OUT_OF_MEMORY;
    memset(*at, 0xFF, bytes);
    return SUCCESS;
}
CUresult cuMemHostAlloc(void** at, size_t bytes, unsigned) {
    *at = malloc(bytes);
    return *at ? SUCCESS : OUT_OF_MEMORY;
}
CUresult cuMemFreeHost(void* at) {
    free(at);
    return SUCCESS;
}
CUresult cuMemFree_v2(void* at) {
    free(at);
    return SUCCESS;
}
CUresult cuMemsetD8Async(void* at, unsigned char value, size_t bytes, void*) {
    memset(at, value, bytes);
    return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    if (broken) return ILLEGAL_ADDRESS;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    copies.push_back({to, from, bytes});
    return SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
    if (broken) return ILLEGAL_ADDRESS;
    make_copies();
    memcpy(to, from, bytes);
    return SUCCESS;
}
CUresult cuLaunchKernel(
    const Registration* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned, void*,
    void** parameters, void**
) {
    if (threads != THREADS || y > 65535 || z > 65535) return INVALID_VALUE;
    const char* arguments = static_cast<const char*>(parameters[0]);
    const Launched launched{kernel, {x, y, z}, std::vector<char>(arguments, arguments + kernel->size)};
    if (captured) {
        captured->push_back(launched);
        return SUCCESS;
    }
    return launch(launched);
}
CUresult cuStreamBeginCapture_v2(void*, int) {
    captured = new Graph;
    return SUCCESS;
}
CUresult cuStreamEndCapture(void*, Graph** graph) {
    *graph = captured;
    captured = nullptr;
    return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    return SUCCESS;
}
CUresult cuGraphLaunch(Graph* graph, void*) {
    for (const Launched& l : *graph) {
        const CUresult result = launch(l);
        if (result != SUCCESS) return result;
    }
    return SUCCESS;
}
CUresult cuGraphDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}
CUresult cuGraphExecDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}
}
