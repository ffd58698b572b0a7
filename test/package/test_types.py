"""What the package says of its types: the stub of the compiled module, and the public functions."""

import ast
import inspect
from pathlib import Path

import functorch_ext
from functorch_ext import _C

PACKAGE = Path(functorch_ext.__file__).parent


def _stub():
    return ast.parse((PACKAGE / "_C.pyi").read_text()).body


def _public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_stub_names_what_the_compiled_module_has():
    named = {node.name for node in _stub() if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert named == _public(vars(_C))


def test_the_stub_names_the_members_of_classes():
    for node in _stub():
        if not isinstance(node, ast.ClassDef):
            continue
        stubbed = _public(
            each.name if isinstance(each, ast.FunctionDef) else each.target.id
            for each in node.body
            if isinstance(each, (ast.FunctionDef, ast.AnnAssign))
        )
        has = _public(vars(getattr(_C, node.name)))
        # pybind11 gives every enumeration a name and a value.
        assert stubbed <= has and has - stubbed <= {"name", "value"}, node.name


def test_transforms_keep_the_signature_of_the_function():
    def function(x, *, scale=2.0):
        return (x * scale).sum()

    for transform in (
        functorch_ext.vmap,
        functorch_ext.grad,
        functorch_ext.grad_and_value,
        functorch_ext.jacrev,
        functorch_ext.jacfwd,
        functorch_ext.hessian,
        functorch_ext.functionalize,
    ):
        assert inspect.signature(transform(function)) == inspect.signature(function), transform


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
