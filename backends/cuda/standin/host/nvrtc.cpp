// libnvrtc for tests: "compiles" a source to itself. NVIDIA's own takes its place where it is found first.

#include <cstdlib>
#include <cstring>
#include <string>

namespace {
struct Program {
    std::string source;
};
}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) {
    *major = 0;
    *minor = 0;
    return 0;
}

int nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source};
    return 0;
}

int nvrtcCompileProgram(void*, int, const char* const*) {
    return 0;
}

int nvrtcDestroyProgram(void** program) {
    delete static_cast<Program*>(*program);
    *program = nullptr;
    return 0;
}

int nvrtcGetPTXSize(void* program, size_t* size) {
    *size = static_cast<Program*>(program)->source.size() + 1;
    return 0;
}

int nvrtcGetPTX(void* program, char* text) {
    const std::string& source = static_cast<Program*>(program)->source;
    std::memcpy(text, source.c_str(), source.size() + 1);
    return 0;
}

int nvrtcGetProgramLogSize(void*, size_t* size) {
    *size = 1;
    return 0;
}

int nvrtcGetProgramLog(void*, char* text) {
    *text = 0;
    return 0;
}

const char* nvrtcGetErrorString(int) {
    return "an error of the stand-in";
}
}
