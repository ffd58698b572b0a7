"""Complex and low-precision numbers, empty tensors, unused inputs, sparse tensors."""

import torch

from test.composing.rows import BOTH, row, sample, total, uses

FEATURE = "Dtypes, layouts and special cases"
COMPLEX = sample(4, 3, dtype=torch.complex128) + 1j * sample(4, 3, seed=1)


def holomorphic(z):
    return z * z * (1 + 2j) + z.exp()


def slope(z):
    return 2 * z * (1 + 2j) + z.exp()


def complex_jvp(F):
    return F.jvp(holomorphic, (COMPLEX[0],), (COMPLEX[1],))


def complex_vjp(F):
    return F.vjp(holomorphic, COMPLEX[0])[1](COMPLEX[1])[0]


def of_complex(z):
    """A real loss of a complex input."""
    return (z.abs().square() + (z * z).real).sum()


def magnitude(z):
    return (z.real**2 * z.imag).sin()


def low(dtype, shape=(4, 3)):
    return (sample(*shape, dtype=dtype) / 2,)


def smooth(x):
    return (x.sin() * x).softmax(-1)


def independent(x):
    return torch.ones(2, dtype=x.dtype)


def half_independent(x):
    return x.sin(), torch.ones(2, dtype=x.dtype)


def strict_jvp(F):
    return F.jvp(torch.sin, (XS[0][0],), (XS[0][1],), strict=True)


def raises_when_strict(F):
    try:
        F.jvp(independent, (XS[0][0],), (XS[0][1],), strict=True)
    except RuntimeError:
        return "raised"
    return "didn't raise"


def unused_argument(F):
    return F.grad(lambda x, y: x.sum(), (0, 1))(XS[0][0], XS[0][1])


def empty_columns(x):
    return (x.sin() * 2).cumsum(0), x.sum()


MATRIX = sample(3, 3, seed=2) * (sample(3, 3, seed=3) > 0)
XS = (sample(4, 3),)


def sparse(layout):
    return {"COO": MATRIX.to_sparse, "CSR": MATRIX.to_sparse_csr}[layout]()


def sparse_product(layout):
    return lambda x: (sparse(layout) @ x.reshape(3, 1)).sin().reshape(3)


def sparse_product_plain(x):
    return (MATRIX @ x.reshape(3, 1)).sin().reshape(3)


def sparse_matrix_product(layout):
    return lambda x: torch.sparse.mm(sparse(layout), x)


def sparse_parameter(F):
    """The gradient of dense values that a sparse tensor is made of inside."""
    indices = torch.tensor([[0, 1, 2], [1, 0, 2]])

    def func(values):
        matrix = torch.sparse_coo_tensor(indices, values, (3, 3))
        return torch.sparse.mm(matrix, MATRIX).square().sum()

    return F.grad(func)(XS[0][0])


def sparse_parameter_plain():
    indices = torch.tensor([[0, 1, 2], [1, 0, 2]])
    values = XS[0][0].clone().requires_grad_()
    matrix = torch.zeros(3, 3, dtype=torch.float64).index_put(tuple(indices), values)
    return torch.autograd.grad((matrix @ MATRIX).square().sum(), values)[0]


def without(shape):
    return (sample(*shape),)


LOW = ("grad", "vjp", "jvp", "jacrev", "jacfwd", "vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)")
DIAGONAL = torch.diag(slope(COMPLEX[0]))
ROWS = [
    row(FEATURE, "complex, holomorphic", "jacfwd", lambda F: F.jacfwd(holomorphic)(COMPLEX[0]),
        lambda: DIAGONAL),
    row(FEATURE, "complex, holomorphic", "jvp", complex_jvp,
        lambda: (holomorphic(COMPLEX[0]), slope(COMPLEX[0]) * COMPLEX[1])),
    row(FEATURE, "complex, holomorphic", "vjp", complex_vjp,
        lambda: slope(COMPLEX[0]).conj() * COMPLEX[1]),
    row(FEATURE, "complex, holomorphic", "jacrev (conjugated, as PyTorch's gradients are)",
        lambda F: F.jacrev(holomorphic)(COMPLEX[0]), lambda: DIAGONAL.conj()),
    row(FEATURE, "complex, holomorphic", "vmap(jacfwd)",
        lambda F: F.vmap(F.jacfwd(holomorphic))(COMPLEX),
        lambda: torch.diag_embed(slope(COMPLEX))),
    *uses(FEATURE, "complex input, real loss", of_complex, (COMPLEX,),
          ("grad", "vjp", "jvp", "vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)", "vmap(jvp)",
           "grad(grad)")),
    *uses(FEATURE, "complex input, real output", magnitude, (COMPLEX,),
          ("grad", "vjp", "jvp", "vmap", "vmap(grad)", "grad(vmap)", "jvp(vmap)", "vmap(jvp)")),
    *uses(FEATURE, "real input, complex output",
          lambda x: torch.view_as_real(torch.fft.fft(x) * (1 + 1j)), XS, BOTH),
    *uses(FEATURE, "float16", smooth, low(torch.float16), LOW, tolerance=1e-2),
    *uses(FEATURE, "bfloat16", smooth, low(torch.bfloat16), LOW, tolerance=6e-2),
    *uses(FEATURE, "no features", empty_columns, without((4, 0)), BOTH),
    *uses(FEATURE, "no rows in a sample", lambda x: (x.sin() * 2).sum(0), without((4, 0, 3)), BOTH),
    row(FEATURE, "no samples", "vmap", lambda F: F.vmap(torch.sin)(XS[0][:0]),
        lambda: XS[0][:0]),
    row(FEATURE, "no samples", "vmap(grad)",
        lambda F: F.vmap(F.grad(total(torch.sin)))(XS[0][:0]), lambda: XS[0][:0]),
    row(FEATURE, "no samples", "grad(vmap)",
        lambda F: F.grad(total(F.vmap(torch.sin)))(XS[0][:0]), lambda: XS[0][:0]),
    *uses(FEATURE, "an output independent of the inputs", independent, XS, BOTH),
    *uses(FEATURE, "one of two outputs independent", half_independent, XS, BOTH),
    row(FEATURE, "an output independent of the inputs", "jvp(strict=True) raises",
        raises_when_strict, lambda: "raised"),
    row(FEATURE, "an output independent of the inputs", "jvp(strict=True), dependent", strict_jvp),
    row(FEATURE, "an unused argument", "grad", unused_argument),
    *(each for layout in ("COO", "CSR") for each in uses(
        FEATURE, f"sparse {layout}, closed over: @", sparse_product(layout), XS,
        ("grad", "vjp", "jvp", "grad(grad)"), plain=sparse_product_plain)),
    *(each for layout in ("COO", "CSR") for each in uses(
        FEATURE, f"sparse {layout}, closed over: torch.sparse.mm", sparse_matrix_product(layout),
        (sample(2, 3, 2),), ("grad", "vjp", "jvp", "grad(grad)"), plain=lambda x: MATRIX @ x)),
    row(FEATURE, "sparse COO, made inside of dense values", "grad", sparse_parameter,
        sparse_parameter_plain),
]  # fmt: skip
