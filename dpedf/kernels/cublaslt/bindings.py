"""cuBLASLt as a product needs it: what it describes, what it offers, and what it launches."""

from contextlib import suppress

import numpy as np

WORKSPACE = 1 << 25  # bytes
OFFERS = 8  # algorithms that cuBLASLt is asked for


class Bindings:
    """cuBLASLt, through nvmath.bindings.cublasLt, on one stream of CuPy's.

    like: an array of the GPU.  times(functions): how long what each of them launches takes; None
    where nothing is timed.
    """

    def __init__(self, lt, stream, like, times):
        self.lt, self.stream, self.times, self.handle = lt, stream, times, lt.create()
        self.workspace = np.empty(WORKSPACE, np.uint8, like=like)
        self.factors = {kind: np.array([0, 1], kind) for kind in ("float32", "float64")}

    def description(self, compute, scale, transposed, bias):
        """Of a product; transposed: are its factors?  bias: the address of one, or None."""
        desc = self.lt.matmul_desc_create(compute, scale)
        for name, is_transposed in zip(("TRANSA", "TRANSB"), transposed, strict=True):
            self.describe("matmul_desc", desc, name, is_transposed)
        if bias is not None:
            self.describe("matmul_desc", desc, "EPILOGUE", self.lt.Epilogue.BIAS)
            self.set_bias(desc, bias)
        return desc

    def set_bias(self, desc, bias):
        self.describe("matmul_desc", desc, "BIAS_POINTER", bias)

    def layout(self, operand, kind, leading, count=1):
        layout = self.lt.matrix_layout_create(kind, operand.rows, operand.columns, leading)
        self.describe("matrix_layout", layout, "BATCH_COUNT", count)
        step = operand.step if count > 1 else 0
        self.describe("matrix_layout", layout, "STRIDED_BATCH_OFFSET", step)
        return layout

    def forget(self, layouts):
        for layout in layouts:
            self.lt.matrix_layout_destroy(layout)

    def offers(self, desc, layouts, alignments):
        """The algorithms that cuBLASLt proposes for matrices of these layouts, the best first."""
        lt = self.lt
        preference = lt.matmul_preference_create()
        self.describe("matmul_preference", preference, "MAX_WORKSPACE_BYTES", WORKSPACE)
        for name, alignment in zip("ABCD", (*alignments, alignments[2]), strict=True):
            attribute = f"MIN_ALIGNMENT_{name}_BYTES"
            self.describe("matmul_preference", preference, attribute, alignment)
        results = np.zeros(OFFERS, lt.matmul_heuristic_result_dtype)
        found = np.zeros(1, np.int32)
        with suppress(lt.cuBLASLtError):  # it found none
            lt.matmul_algo_get_heuristic(
                *(self.handle, desc, *layouts, layouts[2], preference, OFFERS),
                *(results.ctypes.data, found.ctypes.data),
            )
        lt.matmul_preference_destroy(preference)
        results = results[: found[0]]
        return [results[k : k + 1] for k in np.flatnonzero(results["state"] == 0)]

    def takes(self, desc, layouts, algorithm):
        """Does an algorithm multiply matrices of these layouts, in the workspace that there is?"""
        lt, result = self.lt, np.zeros(1, self.lt.matmul_heuristic_result_dtype)
        addresses = algorithm.ctypes.data, result.ctypes.data
        try:
            lt.matmul_algo_check(self.handle, desc, *layouts, layouts[2], *addresses)
        except lt.cuBLASLtError:
            return False
        return result["workspace_size"][0] <= WORKSPACE

    def launch(self, desc, layouts, algorithm, addresses, dtype, add):
        """C = A B, or with add C += A B, at the addresses of A, B and C."""
        (A, B, C), factors = addresses, self.factors[dtype]
        one, beta = factors[1:].ctypes.data, factors[int(add) :].ctypes.data
        self.lt.matmul(
            *(self.handle, desc, one, A, layouts[0], B, layouts[1], beta, C, layouts[2]),
            *(C, layouts[2], algorithm.ctypes.data),
            *(self.workspace.data.ptr, WORKSPACE, self.stream.ptr),
        )

    def describe(self, kind, thing, name, number):
        """Set an attribute of a matmul_desc, a matmul_preference or a matrix_layout."""
        lt = self.lt
        names = {
            "matmul_desc": lt.MatmulDescAttribute,
            "matmul_preference": lt.MatmulPreferenceAttribute,
            "matrix_layout": lt.MatrixLayoutAttribute,
        }
        attribute = names[kind][name]
        value = np.array([number], getattr(lt, f"get_{kind}_attribute_dtype")(attribute))
        set_attribute = getattr(lt, f"{kind}_set_attribute")
        set_attribute(thing, attribute, value.ctypes.data, value.nbytes)
