// libcusolver for tests: factorisations by the host's LAPACK, queued like everything else.

#include "matrix.h"
#include "queue.h"

#include <cstring>
#include <lapacke.h>

namespace {

constexpr int SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 3;

struct Handle {
    void* stream = nullptr;
};

// cuBLAS counts the lower triangle as 0, the upper one as 1.
char triangle(int uplo) {
    return uplo == 0 ? 'L' : 'U';
}

Part part(int uplo) {
    return uplo == 0 ? Part::Lower : Part::Upper;
}

int turned(int uplo) {
    return standin_current_mutant() == MUTANT_UPPER_FOR_LOWER ? 1 - uplo : uplo;
}

// Room that every routine asks for and fills, so that one that was given too little is noticed.
constexpr int per_row = 4;

void scribble(float* workspace, int length) {
    std::memset(workspace, 0xff, static_cast<size_t>(length) * sizeof(float));
}

int room(int n, int* length) {
    *length = per_row * n;
    return SUCCESS;
}

}  // namespace

extern "C" {

int cusolverDnCreate(void** handle) {
    *handle = new Handle;
    return SUCCESS;
}

int cusolverDnDestroy(void* handle) {
    delete static_cast<Handle*>(handle);
    return SUCCESS;
}

int cusolverDnSetStream(void* handle, void* stream) {
    static_cast<Handle*>(handle)->stream = stream;
    return SUCCESS;
}

int cusolverDnSpotrf_bufferSize(void*, int, int n, float*, int, int* length) {
    return room(n, length);
}

int cusolverDnSpotri_bufferSize(void*, int, int n, float*, int, int* length) {
    return room(n, length);
}

int cusolverDnSsyevd_bufferSize(void*, int, int, int n, const float*, int, const float*, int* length) {
    return room(n, length);
}

int cusolverDnSpotrf(void* handle, int uplo, int n, float* a, int lda, float* workspace, int length, int* info) {
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || lda < (n > 1 ? n : 1) || length < per_row * n) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        scribble(workspace, length);
        Matrix matrix(a, n, n, lda, part(uplo));
        matrix.load();
        *info = LAPACKE_spotrf_work(LAPACK_COL_MAJOR, triangle(uplo), n, matrix.data(), matrix.pitch());
        matrix.store(a);
    });
    return SUCCESS;
}

int cusolverDnSpotri(void* handle, int uplo, int n, float* a, int lda, float* workspace, int length, int* info) {
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || lda < (n > 1 ? n : 1) || length < per_row * n) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        scribble(workspace, length);
        Matrix matrix(a, n, n, lda, part(uplo));
        matrix.load();
        *info = LAPACKE_spotri_work(LAPACK_COL_MAJOR, triangle(uplo), n, matrix.data(), matrix.pitch());
        matrix.store(a);
    });
    return SUCCESS;
}

int cusolverDnSpotrs(void* handle, int uplo, int n, int columns, const float* a, int lda, float* b, int ldb, int* info) {
    int least = n > 1 ? n : 1;
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || columns < 0 || lda < least || ldb < least) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        Matrix matrix(a, n, n, lda, part(uplo)), sides(b, n, columns, ldb);
        matrix.load();
        sides.load();
        *info = LAPACKE_spotrs_work(LAPACK_COL_MAJOR, triangle(uplo), n, columns, matrix.data(), matrix.pitch(), sides.data(),
                                    sides.pitch());
        sides.store(b);
    });
    return SUCCESS;
}

int cusolverDnSsyevd(void* handle, int vectors, int uplo, int n, float* a, int lda, float* values, float* workspace,
                     int length, int* info) {
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || lda < (n > 1 ? n : 1) || length < per_row * n) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        scribble(workspace, length);
        Matrix matrix(a, n, n, lda, part(uplo));
        matrix.load();
        *info = LAPACKE_ssyevd(LAPACK_COL_MAJOR, vectors == 0 ? 'N' : 'V', triangle(uplo), n, matrix.data(), matrix.pitch(), values);
        matrix.part = Part::Whole;
        matrix.store(a);
    });
    return SUCCESS;
}

int cusolverDnSpotrfBatched(void* handle, int uplo, int n, float** matrices, int lda, int* info, int count) {
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || lda < (n > 1 ? n : 1) || count < 0) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    // The pointers are in device memory: they are known only when it is this call's turn.
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        for (int job = 0; job < count; job++) {
            Matrix matrix(matrices[job], n, n, lda, part(uplo));
            matrix.load();
            info[job] = LAPACKE_spotrf_work(LAPACK_COL_MAJOR, triangle(uplo), n, matrix.data(), matrix.pitch());
            matrix.store(matrices[job]);
        }
    });
    return SUCCESS;
}

int cusolverDnCreateSyevjInfo(void** settings) {
    *settings = new int;
    return SUCCESS;
}

int cusolverDnDestroySyevjInfo(void* settings) {
    delete static_cast<int*>(settings);
    return SUCCESS;
}

int cusolverDnSsyevjBatched_bufferSize(void*, int, int, int n, const float*, int, const float*, int* length, void*, int count) {
    return room(n * count, length);
}

int cusolverDnSsyevjBatched(void* handle, int vectors, int uplo, int n, float* a, int lda, float* values, float* workspace,
                            int length, int* info, void* settings, int count) {
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || lda < (n > 1 ? n : 1) || length < per_row * n * count || settings == nullptr) {
        return INVALID_VALUE;
    }
    uplo = turned(uplo);
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=] {
        scribble(workspace, length);
        for (int job = 0; job < count; job++) {
            float* start = a + static_cast<size_t>(job) * static_cast<size_t>(lda) * static_cast<size_t>(n);
            Matrix matrix(start, n, n, lda, part(uplo));
            matrix.load();
            info[job] = LAPACKE_ssyevd(LAPACK_COL_MAJOR, vectors == 0 ? 'N' : 'V', triangle(uplo), n, matrix.data(),
                                       matrix.pitch(), values + job * n);
            matrix.part = Part::Whole;
            matrix.store(start);
        }
    });
    return SUCCESS;
}
}
