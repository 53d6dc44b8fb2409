"""The kernel count, on a program whose bytes were added up by hand and on a small block."""

from benchmarks.kernels import Kernel, count_bytes, list_kernels, make_block, measure, transpose_ranks

PROGRAM = """HloModule it

%fused_computation (p: f32[4,6]) -> f32[4,6] {
  %p = f32[4,6]{1,0} parameter(0)
  ROOT %e = f32[4,6]{1,0} exponential(%p)
}

ENTRY %main (a: f32[2,12], b: bf16[6,5]) -> (f32[4,6], f32[4,5]) {
  %a = f32[2,12]{1,0} parameter(0), metadata={op_name="x(y)"}
  %b = bf16[6,5]{1,0} parameter(1)
  %c = f32[4,6]{1,0} bitcast(%a)
  %wide.1 = f32[6,5]{1,0} convert(%b)
  %f = f32[4,6]{1,0} fusion(%c, /*index=1*/%c), kind=kLoop, calls=%fused_computation
  %d = f32[4,5]{1,0} dot(%f, %wide.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r = (f32[4,6]{1,0}, f32[4,5]{1,0}) tuple(%f, %d)
}
"""


def test_kernels_and_bytes_are_those_counted_by_hand():
    assert list_kernels(PROGRAM) == [
        Kernel("convert", "wide.1", 6 * 5 * 2 + 6 * 5 * 4),
        Kernel("fusion", "f", 3 * 4 * 6 * 4),
        Kernel("dot", "d", 4 * 6 * 4 + 6 * 5 * 4 + 4 * 5 * 4),
    ]


def test_bytes_of_arrays_and_ranks_of_transposes():
    arrays = (("f32", "2,3"), ("bf16", "7"), ("pred", "5,1"), ("s64", ""))
    assert [count_bytes(*array) for array in arrays] == [24, 14, 5, 8]
    lines = ["%t.1 = f32[3,2,5]{2,1,0} transpose(%a), dimensions={1,0,2}", "%u = f32[3,2]{1,0} copy(%b)"]
    assert transpose_ranks("\n".join(lines)) == [3]


def test_a_block_has_the_products_of_its_layers_and_no_transpose_of_more_than_five_axes():
    (forward, with_gradients), x = make_block((8, 48, 64), "float32")
    kernels, ranks = measure(forward, x)
    # Queries with keys and values, logits, attended values, projection, and two of the MLP.
    assert sum(kernel.kind in ("dot", "custom-call") for kernel in kernels) == 6
    assert max(ranks) <= 5
    more, ranks = measure(with_gradients, x)
    assert sum(kernel.kind in ("dot", "custom-call") for kernel in more) == 18
    assert max(ranks) <= 5
    assert sum(kernel.num_bytes for kernel in more) > 2 * sum(kernel.num_bytes for kernel in kernels)
