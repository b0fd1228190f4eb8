// Products with a matrix that is used many times, packed into panels once: rows of the result do not depend on how many
// are made at a time, so neither do they on the number of threads.

#pragma once

#include <cstdint>
#include <vector>

namespace {

template <class C> constexpr int64_t LANES = 64 / sizeof(C);

inline int64_t padded(int64_t n, int64_t lanes) { return (n + lanes - 1) / lanes * lanes; }

constexpr int64_t VECTORS = 4;  // of a panel: columns that are summed in registers together
constexpr int64_t DEPTH = 128;  // rows of a panel that stay in the first-level cache

// A matrix whose rows are whole vectors, cut into panels of VECTORS vectors: where a row of a panel, and where a panel
// begins. Rows of a panel that lie one after the other do not compete for the same lines of the cache.
template <class C> struct Panels {
    const C *data;
    int64_t width, row, panel;
};

// The product of an R x depth matrix `a` with V vectors of the rows of `w`, summed in registers.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
template <class C, int R, int V>
inline void tile(int64_t depth, const C *a, int64_t a_row, int64_t a_column, const C *w, int64_t w_row, C *out,
                 int64_t out_row, bool add) {
    typedef C Vector __attribute__((vector_size(64), aligned(alignof(C)), may_alias));
    Vector sum[R][V];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = Vector{};
    for (int64_t k = 0; k < depth; ++k) {
        Vector row[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) row[v] = *reinterpret_cast<const Vector *>(w + k * w_row + v * LANES<C>);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const C x = a[r * a_row + k * a_column];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[r][v] += x * row[v];
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            Vector *to = reinterpret_cast<Vector *>(out + r * out_row + v * LANES<C>);
            *to = add ? *to + sum[r][v] : sum[r][v];
        }
}
#pragma GCC pop_options

// All rows by V columns: R rows at a time, the remainder by halves of R.
template <class C, int R, int V>
void strip(int64_t rows, int64_t depth, const C *a, int64_t a_row, int64_t a_column, const C *w, int64_t w_row, C *out,
           int64_t out_row, bool add) {
    int64_t row = 0;
    for (; row + R <= rows; row += R)
        tile<C, R, V>(depth, a + row * a_row, a_row, a_column, w, w_row, out + row * out_row, out_row, add);
    if constexpr (R > 1)
        if (row < rows)
            strip<C, R / 2, V>(rows - row, depth, a + row * a_row, a_row, a_column, w, w_row, out + row * out_row,
                               out_row, add);
}

// out = a w (or out += a w): `a` is rows x depth with any strides; rows of out are whole vectors.
template <class C>
void product(int64_t rows, int64_t depth, const C *a, int64_t a_row, int64_t a_column, const Panels<C> &w, C *out,
             int64_t out_row, bool add) {
    for (int64_t start = 0; start < w.width; start += VECTORS * LANES<C>) {
        const int64_t vectors = (w.width - start) / LANES<C>;
        const C *panel = w.data + start / (VECTORS * LANES<C>) * w.panel;
        for (int64_t k = 0; k < depth; k += DEPTH) {
            const int64_t part = depth - k < DEPTH ? depth - k : DEPTH;
            const auto with = [&](auto rows_by) {
                rows_by(rows, part, a + k * a_column, a_row, a_column, panel + k * w.row, w.row, out + start, out_row,
                      add || k > 0);
            };
            switch (vectors) {
            case 1: with(strip<C, 12, 1>); break;
            case 2: with(strip<C, 12, 2>); break;
            case 3: with(strip<C, 6, 3>); break;
            default: with(strip<C, 6, 4>);
            }
        }
    }
}

// A matrix [rows, columns] or its transpose in panels, padded with zeros to whole vectors; empty without `given`.
template <class C> struct Packed {
    int64_t depth = 0, width = 0;
    std::vector<C> data;

    static constexpr int64_t PANEL = VECTORS * LANES<C>;

    // For products out = a given^T: `a` has the columns of `given`, and out its rows.
    static Packed transposed(const void *given, int64_t rows, int64_t columns) {
        return Packed(static_cast<const C *>(given), columns, rows, 1, columns);
    }
    // For products out = a given.
    static Packed plain(const void *given, int64_t rows, int64_t columns) {
        return Packed(static_cast<const C *>(given), rows, columns, columns, 1);
    }

    Packed() = default;

    operator Panels<C>() const { return {data.data(), width, PANEL, depth * PANEL}; }

  private:
    Packed(const C *given, int64_t depth_, int64_t columns, int64_t row, int64_t column)
        : depth(depth_), width(padded(columns, LANES<C>)) {
        if (!given) return;
        data.assign(depth * padded(columns, PANEL), C(0));
        for (int64_t start = 0; start < columns; start += PANEL)
            for (int64_t k = 0; k < depth; ++k)
                for (int64_t i = start; i < start + PANEL && i < columns; ++i)
                    data[start * depth + k * PANEL + i - start] = given[k * row + i * column];
    }
};

}  // namespace
