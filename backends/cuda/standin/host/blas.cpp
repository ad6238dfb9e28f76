// libcublas for tests: products by the host's BLAS, queued like everything else.

#include "matrix.h"
#include "queue.h"

#include <cblas.h>

namespace {

constexpr int SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7;
constexpr int TF32_TENSOR_OP_MATH = 3;

struct Handle {
    void* stream = nullptr;
    // Whether operands of products may be rounded; then they are.
    bool tensor_float = false;
};

CBLAS_TRANSPOSE transposition(int operation) {
    return operation == 0 ? CblasNoTrans : CblasTrans;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
    openblas_set_num_threads(1);
    *handle = new Handle;
    return SUCCESS;
}

int cublasDestroy_v2(void* handle) {
    delete static_cast<Handle*>(handle);
    return SUCCESS;
}

int cublasSetStream_v2(void* handle, void* stream) {
    static_cast<Handle*>(handle)->stream = stream;
    return SUCCESS;
}

int cublasSetMathMode(void* handle, int mode) {
    static_cast<Handle*>(handle)->tensor_float = mode == TF32_TENSOR_OP_MATH;
    return SUCCESS;
}

int cublasSgemm_v2(void* handle, int transa, int transb, int m, int n, int k, const float* alpha, const float* a, int lda,
                   const float* b, int ldb, const float* beta, float* c, int ldc) {
    int a_rows = transa == 0 ? m : k, b_rows = transb == 0 ? k : n;
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (m < 0 || n < 0 || k < 0 || lda < (a_rows > 1 ? a_rows : 1) || ldb < (b_rows > 1 ? b_rows : 1) || ldc < (m > 1 ? m : 1)) {
        return INVALID_VALUE;
    }
    if (standin_current_mutant() == MUTANT_LEADING_DIMENSION) {
        ldc++;
    }
    bool tensor_float = static_cast<Handle*>(handle)->tensor_float;
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=, alpha = *alpha, beta = *beta] {
        Matrix first(a, a_rows, transa == 0 ? k : m, lda), second(b, b_rows, transb == 0 ? n : k, ldb), target(c, m, n, ldc);
        first.load();
        second.load();
        if (tensor_float) {
            first.round_to_tensor_float();
            second.round_to_tensor_float();
        }
        if (beta != 0.0f) {
            target.load();
        }
        cblas_sgemm(CblasColMajor, transposition(transa), transposition(transb), m, n, k, alpha, first.data(), first.pitch(),
                    second.data(), second.pitch(), beta, target.data(), target.pitch());
        target.store(c);
    });
    return SUCCESS;
}

int cublasSsyrk_v2(void* handle, int uplo, int trans, int n, int k, const float* alpha, const float* a, int lda,
                   const float* beta, float* c, int ldc) {
    int a_rows = trans == 0 ? n : k;
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (n < 0 || k < 0 || lda < (a_rows > 1 ? a_rows : 1) || ldc < (n > 1 ? n : 1)) {
        return INVALID_VALUE;
    }
    if (standin_current_mutant() == MUTANT_UPPER_FOR_LOWER) {
        uplo = 1 - uplo;
    }
    bool tensor_float = static_cast<Handle*>(handle)->tensor_float;
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=, alpha = *alpha, beta = *beta] {
        Matrix first(a, a_rows, trans == 0 ? k : n, lda), target(c, n, n, ldc, uplo == 0 ? Part::Lower : Part::Upper);
        first.load();
        if (tensor_float) {
            first.round_to_tensor_float();
        }
        if (beta != 0.0f) {
            target.load();
        }
        cblas_ssyrk(CblasColMajor, uplo == 0 ? CblasLower : CblasUpper, transposition(trans), n, k, alpha, first.data(),
                    first.pitch(), beta, target.data(), target.pitch());
        target.store(c);
    });
    return SUCCESS;
}

int cublasStrsmBatched(void* handle, int side, int uplo, int trans, int diag, int m, int n, const float* alpha,
                       const float* const* a, int lda, float* const* b, int ldb, int count) {
    int order = side == 0 ? m : n;
    if (!standin_chosen()) {
        return NOT_INITIALIZED;
    }
    if (m < 0 || n < 0 || count < 0 || lda < (order > 1 ? order : 1) || ldb < (m > 1 ? m : 1)) {
        return INVALID_VALUE;
    }
    if (standin_current_mutant() == MUTANT_UPPER_FOR_LOWER) {
        uplo = 1 - uplo;
    }
    standin_enqueue(static_cast<Handle*>(handle)->stream, [=, alpha = *alpha] {
        for (int job = 0; job < count; job++) {
            Matrix triangle(a[job], order, order, lda, uplo == 0 ? Part::Lower : Part::Upper), sides(b[job], m, n, ldb);
            triangle.load();
            sides.load();
            cblas_strsm(CblasColMajor, side == 0 ? CblasLeft : CblasRight, uplo == 0 ? CblasLower : CblasUpper,
                        transposition(trans), diag == 0 ? CblasNonUnit : CblasUnit, m, n, alpha, triangle.data(),
                        triangle.pitch(), sides.data(), sides.pitch());
            sides.store(b[job]);
        }
    });
    return SUCCESS;
}
}
