"""Gives a client's method the name, documentation and signature of the function that builds its call."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Method = TypeVar("Method", bound="Callable[..., object]")

_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)


def described_by(build: Callable[..., object], method: Method, *, returns: str) -> Method:
    """Describe a method by its builder; `returns` has {} where the answer's type goes."""
    signature = inspect.signature(build)
    answer = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    described = signature.replace(
        parameters=[_SELF, *signature.parameters.values()], return_annotation=returns.format(answer)
    )
    for name, value in {
        "__name__": build.__name__,
        "__qualname__": build.__name__,
        "__doc__": build.__doc__,
        "__signature__": described,
    }.items():
        setattr(method, name, value)
    return method
