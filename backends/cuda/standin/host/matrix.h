// Matrices of a library call, copied in and out element by element: exactly what the call may touch is touched, and what
// it may not read is NaN.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

enum class Part { Whole, Lower, Upper };

struct Matrix {
    const float* source;
    int rows, columns, step;
    Part part;
    std::vector<float> content;

    Matrix(const float* source, int rows, int columns, int step, Part part = Part::Whole)
        : source(source), rows(rows), columns(columns), step(step), part(part),
          content(static_cast<size_t>(rows) * static_cast<size_t>(columns) + 1, NAN) {}

    bool within(int row, int column) const {
        return part == Part::Whole || (part == Part::Lower ? row >= column : row <= column);
    }

    size_t far(int row, int column) const {
        return static_cast<size_t>(row) + static_cast<size_t>(column) * static_cast<size_t>(step);
    }

    float& near(int row, int column) {
        return content[static_cast<size_t>(row) + static_cast<size_t>(column) * static_cast<size_t>(rows)];
    }

    Matrix& load() {
        for (int column = 0; column < columns; column++) {
            for (int row = 0; row < rows; row++) {
                if (within(row, column)) {
                    near(row, column) = source[far(row, column)];
                }
            }
        }
        return *this;
    }

    void store(float* target) {
        for (int column = 0; column < columns; column++) {
            for (int row = 0; row < rows; row++) {
                if (within(row, column)) {
                    target[far(row, column)] = near(row, column);
                }
            }
        }
    }

    // To TF32: 10 bits of mantissa, the nearest, as operands of tensor cores. NaN and infinity stay.
    void round_to_tensor_float() {
        for (float& value : content) {
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            if ((bits & 0x7f800000u) != 0x7f800000u) {
                bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
                std::memcpy(&value, &bits, sizeof bits);
            }
        }
    }

    float* data() {
        return content.data();
    }

    int pitch() const {
        return rows > 0 ? rows : 1;
    }
};
