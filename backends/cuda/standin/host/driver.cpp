// libcuda for tests: streams, events, memory and launches on the CPU.
//
// Nothing is done when it is asked for. Work waits in its stream until the host waits for it, and then only as much is
// done as that wait needs, in an order between streams that is drawn from a seed; now and then the dice let some of it
// be done early. So a result read without a wait is old, a buffer reused too early is torn, and work on two streams
// that nothing orders comes in both orders sooner or later.
//
// Every allocation ends at a page that cannot be touched, lies behind another one, is inaccessible until its stream has
// come to it and again once it is freed, and starts out as NaN. A kernel that reaches outside makes every later call
// fail with CUDA_ERROR_ILLEGAL_ADDRESS, as on a device.

#include "cuda_on_host.h"
#include "queue.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace {

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    NO_DEVICE = 100,
    INVALID_IMAGE = 200,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    UNKNOWN = 999,
};

std::recursive_mutex& lock() {
    static std::recursive_mutex mutex;
    return mutex;
}

// ---- dice

struct Dice {
    uint64_t state = 1;

    uint32_t next(uint32_t below) {
        // SplitMix64 (Steele et al. 2014).
        state += 0x9e3779b97f4a7c15ull;
        uint64_t z = state;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        return static_cast<uint32_t>((z >> 32) * below >> 32);
    }

    template <typename T>
    void shuffle(std::vector<T>& items) {
        for (size_t i = items.size(); i > 1; i--) {
            std::swap(items[i - 1], items[next(static_cast<uint32_t>(i))]);
        }
    }
};

Dice dice;
int mutant = MUTANT_NONE;
unsigned launches = 0;
// The launch that loses the device; 0 for none.
unsigned last_launch = 0;

// ---- streams and events

struct EventState {
    uint64_t issued = 0, done = 0;
};

struct Event {
    std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

struct Operation {
    std::function<void()> run;
    // Not before this event has come this far.
    std::shared_ptr<EventState> after;
    uint64_t generation = 0;
};

struct Stream {
    std::deque<Operation> queue;
};

std::vector<Stream*> streams;
int failure = SUCCESS;
int contexts = 0;

bool ready(const Stream& stream) {
    if (stream.queue.empty()) {
        return false;
    }
    const Operation& head = stream.queue.front();
    return !head.after || head.after->done >= head.generation;
}

void run(const std::function<void()>& work);

// Does the next piece of work of some stream; whether there was any.
bool step() {
    std::vector<Stream*> able;
    for (Stream* stream : streams) {
        if (ready(*stream)) {
            able.push_back(stream);
        }
    }
    if (able.empty()) {
        return false;
    }
    Stream* chosen = able[dice.next(static_cast<uint32_t>(able.size()))];
    Operation head = std::move(chosen->queue.front());
    chosen->queue.pop_front();
    if (head.run) {
        run(head.run);
    }
    return true;
}

// Works until `reached`.
template <typename Condition>
int work_until(Condition reached) {
    while (failure == SUCCESS && !reached()) {
        if (!step()) {
            std::fprintf(stderr, "standin: the streams wait for each other\n");
            failure = UNKNOWN;
        }
    }
    return failure;
}

int work_all() {
    return work_until([] { return std::all_of(streams.begin(), streams.end(), [](Stream* s) { return s->queue.empty(); }); });
}

void enqueue(Stream* stream, Operation operation) {
    stream->queue.push_back(std::move(operation));
    // A device is sometimes quick.
    if (failure == SUCCESS && dice.next(8) == 0) {
        for (uint32_t some = dice.next(6); some > 0 && step(); some--) {
        }
    }
}

// ---- memory

struct Allocation {
    char* mapping;
    size_t mapped;
    size_t bytes;
};

std::map<char*, Allocation> allocations;
const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));

// `bytes` that end where a page begins that cannot be touched.
char* reserve(size_t bytes) {
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    size_t mapped = whole + 2 * PAGE;
    void* mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return nullptr;
    }
    char* start = static_cast<char*>(mapping) + PAGE + whole - bytes;
    allocations[start] = Allocation{static_cast<char*>(mapping), mapped, bytes};
    return start;
}

// Lets the device at it; not-a-number everywhere, the page's rest before it included.
void open(char* start) {
    const Allocation& allocation = allocations.at(start);
    mprotect(allocation.mapping + PAGE, allocation.mapped - 2 * PAGE, PROT_READ | PROT_WRITE);
    std::memset(allocation.mapping + PAGE, 0xff, allocation.mapped - 2 * PAGE);
}

// What lies before the first byte must be as `open` left it.
void close(char* start) {
    Allocation allocation = allocations.at(start);
    for (char* byte = allocation.mapping + PAGE; byte < start; byte++) {
        if (*byte != static_cast<char>(0xff)) {
            std::fprintf(stderr, "standin: something was written before the start of an allocation of %zu bytes\n", allocation.bytes);
            failure = ILLEGAL_ADDRESS;
            break;
        }
    }
    munmap(allocation.mapping, allocation.mapped);
    allocations.erase(start);
}

// ---- the libraries behind these

// An OpenBLAS older than the processor takes it for one of 2004 (0.3.21: Prescott, on an Emerald Rapids), and those kernels
// write past the end of their stack here. What the processor can do is asked before OpenBLAS is loaded, which comes later.
__attribute__((constructor)) void name_the_processor() {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        setenv("OPENBLAS_CORETYPE", "Haswell", 0);
    }
#endif
}

// ---- faults

sigjmp_buf rescue;
volatile sig_atomic_t guarded = 0;
const char* volatile doing = "";
struct sigaction previous_segv, previous_bus;
unsigned fibers_made = 0;

void fault(int signal, siginfo_t* info, void* context) {
    if (guarded) {
        guarded = 0;
        siglongjmp(rescue, 1);
    }
    const struct sigaction& previous = signal == SIGSEGV ? previous_segv : previous_bus;
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else {
        std::signal(signal, SIG_DFL);
    }
}

void install() {
    static bool installed = false;
    if (installed) {
        return;
    }
    installed = true;
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
}

void run(const std::function<void()>& work) {
    install();
    if (sigsetjmp(rescue, 1) == 0) {
        guarded = 1;
        work();
        guarded = 0;
    } else {
        // Whatever the fibers were doing, they are not going on with it.
        fibers_made = 0;
        std::fprintf(stderr, "standin: %s touched memory that is not allocated\n", doing);
        failure = ILLEGAL_ADDRESS;
    }
}

// ---- kernels

std::map<std::string, const StandinKernel*>& kernels() {
    static std::map<std::string, const StandinKernel*> all;
    return all;
}

struct Fiber {
    jmp_buf point;
    ucontext_t context;
    bool started, waiting, done;
    uint3 index;
};

constexpr size_t STACK = 64 * 1024;
constexpr unsigned MOST_THREADS = 1024;
Fiber fibers[MOST_THREADS];
char* stacks = nullptr;
jmp_buf scheduler;
Fiber* current = nullptr;
std::function<void()>* body = nullptr;

void fiber_main() {
    for (;;) {
        (*body)();
        current->done = true;
        if (_setjmp(current->point) == 0) {
            _longjmp(scheduler, 1);
        }
    }
}

void resume(Fiber& fiber) {
    current = &fiber;
    standin_thread = fiber.index;
    if (_setjmp(scheduler) == 0) {
        if (fiber.started) {
            _longjmp(fiber.point, 1);
        }
        fiber.started = true;
        setcontext(&fiber.context);
    }
}

void make_fibers(unsigned count) {
    if (!stacks) {
        void* memory = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        stacks = static_cast<char*>(memory);
    }
    for (; fibers_made < count; fibers_made++) {
        Fiber& fiber = fibers[fibers_made];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks + STACK * fibers_made;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
        fiber.started = false;
    }
}

uint3 unravel(unsigned i, uint3 extent) {
    return {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y};
}

void run_block(const StandinKernel& kernel, std::function<void()>& thread, std::vector<unsigned>& order) {
    unsigned threads = static_cast<unsigned>(order.size());
    if (!kernel.barriers) {
        for (unsigned i : order) {
            standin_thread = unravel(i, standin_block_extent);
            thread();
        }
        return;
    }
    make_fibers(threads);
    body = &thread;
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].done = false;
        fibers[i].index = unravel(i, standin_block_extent);
    }
    for (unsigned left = threads; left > 0;) {
        unsigned waiting = 0;
        for (unsigned i : order) {
            if (fibers[i].done) {
                continue;
            }
            resume(fibers[i]);
            if (fibers[i].done) {
                left--;
            } else {
                waiting++;
            }
        }
        if (waiting != 0 && waiting != threads) {
            std::fprintf(stderr, "standin: %s: not all threads of a block come to the same barrier\n", kernel.name);
            failure = LAUNCH_FAILED;
            fibers_made = 0;
            return;
        }
        // Reversed at every barrier, which is as different as it can be at no cost.
        std::reverse(order.begin(), order.end());
    }
}

void run_kernel(const StandinKernel& kernel, uint3 grid, uint3 block, std::function<void()>& thread) {
    doing = kernel.name;
    standin_grid_extent = grid;
    standin_block_extent = block;
    std::vector<unsigned> blocks(grid.x * grid.y * grid.z), order(block.x * block.y * block.z);
    for (unsigned i = 0; i < blocks.size(); i++) {
        blocks[i] = i;
    }
    for (unsigned i = 0; i < order.size(); i++) {
        order[i] = i;
    }
    dice.shuffle(blocks);
    dice.shuffle(order);
    for (unsigned i : blocks) {
        if (failure != SUCCESS) {
            return;
        }
        standin_block = unravel(i, grid);
        run_block(kernel, thread, order);
    }
}

Stream& null_stream() {
    static Stream* stream = [] {
        auto* made = new Stream;
        streams.push_back(made);
        return made;
    }();
    return *stream;
}

Stream* stream_of(void* handle) {
    return handle ? static_cast<Stream*>(handle) : &null_stream();
}

}  // namespace

// Where the thread that runs now is.
extern "C" {
uint3 standin_thread, standin_block, standin_block_extent, standin_grid_extent;

void standin_barrier() {
    if (_setjmp(current->point) == 0) {
        _longjmp(scheduler, 1);
    }
}

void standin_register(const StandinKernel* table, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        kernels()[table[i].name] = &table[i];
    }
}

// What decides the order between streams, between blocks and between threads.
void standin_seed(uint64_t seed) {
    std::lock_guard guard(lock());
    dice.state = seed;
}

// From now on calls are carried out as a wrong backend would have made them.
void standin_mutant(int which) {
    std::lock_guard guard(lock());
    mutant = which;
}

// After so many more launches the device is lost, as after a kernel that crashed.
void standin_lose_after(unsigned more) {
    std::lock_guard guard(lock());
    last_launch = launches + more;
}

// Kernels launched so far.
unsigned standin_launches() {
    std::lock_guard guard(lock());
    return launches;
}
}

void standin_enqueue(void* stream, std::function<void()> work) {
    std::lock_guard guard(lock());
    enqueue(stream_of(stream), Operation{[work = std::move(work)] {
        doing = "a library routine";
        work();
    }, nullptr, 0});
}

int standin_current_mutant() {
    return mutant;
}

static thread_local void* current_context = nullptr;

#define BEGIN                          \
    std::lock_guard guard(lock());     \
    if (!current_context) {            \
        return INVALID_CONTEXT;        \
    }                                  \
    if (failure != SUCCESS) {          \
        return failure;                \
    }

// For the libraries beside the driver: whether this thread has chosen a device.
bool standin_chosen() {
    return current_context != nullptr;
}

extern "C" {

int cuInit(unsigned) {
    const char* seed = std::getenv("KRONFLEET_STANDIN_SEED");
    static bool first = true;
    if (seed && first) {
        dice.state = std::strtoull(seed, nullptr, 10);
    }
    const char* lose = std::getenv("KRONFLEET_STANDIN_LOSE_AFTER");
    if (lose && first) {
        last_launch = static_cast<unsigned>(std::strtoul(lose, nullptr, 10));
    }
    first = false;
    return SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : 101;
}

int cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 75: *value = 8; break;    // compute capability, major
        case 76: *value = 0; break;    // and minor
        case 115: *value = 1; break;   // memory pools
        case 16: *value = 4; break;    // multiprocessors
        default: *value = 0;
    }
    return SUCCESS;
}

int cuDeviceGetName(char* name, int length, int) {
    std::snprintf(name, static_cast<size_t>(length), "CPU stand-in");
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void** pool, int) {
    static int only;
    *pool = &only;
    return SUCCESS;
}

int cuMemPoolSetAttribute(void*, int, void*) {
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
    std::lock_guard guard(lock());
    static int only;
    contexts++;
    *context = &only;
    return SUCCESS;
}

// The last one takes a lost device's loss with it.
int cuDevicePrimaryCtxRelease_v2(int) {
    std::lock_guard guard(lock());
    if (--contexts == 0) {
        work_all();
        for (Stream* stream : streams) {
            stream->queue.clear();
        }
        failure = SUCCESS;
        while (!allocations.empty()) {
            close(allocations.begin()->first);
        }
        failure = SUCCESS;
    }
    return SUCCESS;
}

int cuCtxSetCurrent(void* context) {
    current_context = context;
    return SUCCESS;
}

int cuCtxGetCurrent(void** context) {
    *context = current_context;
    return SUCCESS;
}

int cuCtxSynchronize() {
    BEGIN
    return work_all();
}

int cuStreamCreate(void** stream, unsigned) {
    BEGIN
    auto* made = new Stream;
    streams.push_back(made);
    *stream = made;
    return SUCCESS;
}

int cuStreamCreateWithPriority(void** stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}

// What is in the stream is still done.
int cuStreamDestroy_v2(void* handle) {
    std::lock_guard guard(lock());
    auto* stream = static_cast<Stream*>(handle);
    work_until([&] { return stream->queue.empty(); });
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return SUCCESS;
}

int cuStreamSynchronize(void* handle) {
    BEGIN
    Stream* stream = stream_of(handle);
    return work_until([&] { return stream->queue.empty(); });
}

int cuStreamWaitEvent(void* handle, void* event, unsigned) {
    BEGIN
    if (mutant == MUTANT_MISSING_STREAM_WAIT) {
        return SUCCESS;
    }
    auto& state = static_cast<Event*>(event)->state;
    if (state->issued > 0) {
        enqueue(stream_of(handle), Operation{nullptr, state, state->issued});
    }
    return SUCCESS;
}

int cuEventCreate(void** event, unsigned) {
    BEGIN
    *event = new Event;
    return SUCCESS;
}

int cuEventRecord(void* event, void* handle) {
    BEGIN
    auto state = static_cast<Event*>(event)->state;
    uint64_t generation = ++state->issued;
    enqueue(stream_of(handle), Operation{[state, generation] { state->done = std::max(state->done, generation); }, nullptr, 0});
    return SUCCESS;
}

int cuEventSynchronize(void* event) {
    BEGIN
    if (mutant == MUTANT_MISSING_EVENT_WAIT) {
        return SUCCESS;
    }
    auto state = static_cast<Event*>(event)->state;
    uint64_t generation = state->issued;
    return work_until([&] { return state->done >= generation; });
}

// Looking lets time pass.
int cuEventQuery(void* event) {
    BEGIN
    auto& state = static_cast<Event*>(event)->state;
    for (uint32_t some = dice.next(4); some > 0 && step(); some--) {
    }
    if (failure != SUCCESS) {
        return failure;
    }
    return state->done >= state->issued ? SUCCESS : NOT_READY;
}

int cuEventDestroy_v2(void* event) {
    std::lock_guard guard(lock());
    delete static_cast<Event*>(event);
    return SUCCESS;
}

int cuMemAllocAsync(uint64_t* pointer, size_t bytes, void* handle) {
    BEGIN
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    char* start = bytes > (size_t(1) << 40) ? nullptr : reserve(bytes);
    if (!start) {
        return OUT_OF_MEMORY;
    }
    enqueue(stream_of(handle), Operation{[start] { open(start); }, nullptr, 0});
    *pointer = reinterpret_cast<uint64_t>(start);
    return SUCCESS;
}

int cuMemFreeAsync(uint64_t pointer, void* handle) {
    std::lock_guard guard(lock());
    if (failure != SUCCESS) {
        return failure;
    }
    auto* start = reinterpret_cast<char*>(pointer);
    if (!allocations.count(start)) {
        return INVALID_VALUE;
    }
    enqueue(stream_of(handle), Operation{[start] { close(start); }, nullptr, 0});
    return SUCCESS;
}

int cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    BEGIN
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    char* start = reserve(bytes);
    if (!start) {
        return OUT_OF_MEMORY;
    }
    open(start);
    *pointer = start;
    return SUCCESS;
}

// At once: whatever still copies from or to it touches memory that is gone.
int cuMemFreeHost(void* pointer) {
    std::lock_guard guard(lock());
    auto* start = static_cast<char*>(pointer);
    if (!allocations.count(start)) {
        return failure == SUCCESS ? INVALID_VALUE : failure;
    }
    close(start);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uint64_t target, const void* source, size_t bytes, void* handle) {
    BEGIN
    enqueue(stream_of(handle), Operation{[=] {
        doing = "a copy to the device";
        std::memcpy(reinterpret_cast<void*>(target), source, bytes);
    }, nullptr, 0});
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void* target, uint64_t source, size_t bytes, void* handle) {
    BEGIN
    enqueue(stream_of(handle), Operation{[=] {
        doing = "a copy to the host";
        std::memcpy(target, reinterpret_cast<const void*>(source), bytes);
    }, nullptr, 0});
    return SUCCESS;
}

int cuMemsetD8Async(uint64_t target, unsigned char value, size_t bytes, void* handle) {
    BEGIN
    enqueue(stream_of(handle), Operation{[=] {
        doing = "a fill";
        std::memset(reinterpret_cast<void*>(target), value, bytes);
    }, nullptr, 0});
    return SUCCESS;
}

// PTX by NVIDIA's compiler, or what the compiler's own stand-in makes of a source: the source itself.
int cuModuleLoadData(void** module, const void* image) {
    BEGIN
    auto text = std::make_unique<std::string>(static_cast<const char*>(image));
    if (text->find(".entry") == std::string::npos && text->find("__global__") == std::string::npos) {
        return INVALID_IMAGE;
    }
    *module = text.release();
    return SUCCESS;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    BEGIN
    const auto& text = *static_cast<std::string*>(module);
    auto found = kernels().find(name);
    if (found == kernels().end() || text.find(std::string(" ") + name + "(") == std::string::npos) {
        return NOT_FOUND;
    }
    *function = const_cast<StandinKernel*>(found->second);
    return SUCCESS;
}

int cuModuleUnload(void* module) {
    std::lock_guard guard(lock());
    delete static_cast<std::string*>(module);
    return SUCCESS;
}

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned, void* handle, void** arguments, void**) {
    BEGIN
    if (gx == 0 || gy == 0 || gz == 0 || bx * by * bz == 0 || bx * by * bz > MOST_THREADS) {
        return INVALID_VALUE;
    }
    launches++;
    if (launches == last_launch) {
        return failure = LAUNCH_FAILED;
    }
    if (mutant == MUTANT_LAUNCH_BOUND && gx > 1) {
        gx--;
    }
    const auto* kernel = static_cast<const StandinKernel*>(function);
    auto thread = kernel->bind(arguments);
    enqueue(stream_of(handle), Operation{[=]() mutable { run_kernel(*kernel, {gx, gy, gz}, {bx, by, bz}, thread); }, nullptr, 0});
    return SUCCESS;
}

int cuGetErrorName(int error, const char** name) {
    *name = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "an error of the stand-in";
    return SUCCESS;
}

int cuGetErrorString(int error, const char** text) {
    return cuGetErrorName(error, text);
}
}
