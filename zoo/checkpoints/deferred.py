"""Models whose variables get their values later: none is allocated or drawn for nothing."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

_WAITING = "uninitialized_variables"


@contextlib.contextmanager
def without_values() -> Iterator[list[Any]]:
    """Variables made within note their shapes alone. Yields the list in which they are put; give
    each a value with `set_value`, and those that are left their first one with `initialize`.
    """
    import keras
    from keras.src.backend.common import global_state

    before = global_state.get_global_attribute(_WAITING)
    waiting: list[Any] = []
    global_state.set_global_attribute(_WAITING, waiting)
    try:
        # Keras would allocate what waits when the scope ends, or with the next model's first call.
        with keras.StatelessScope(initialize_variables=False):
            yield waiting
    finally:
        global_state.set_global_attribute(_WAITING, before)


def set_value(variable: Any, value: Any) -> None:
    """Sets a variable, whether or not it has a value."""
    if variable._value is not None:
        variable.assign(value)
        return
    import keras

    variable._initializer = lambda shape, dtype: keras.ops.convert_to_tensor(value, dtype)
    variable._deferred_initialize()


def initialize(variables: Iterable[Any]) -> None:
    """Gives those that have no value their first one."""
    for variable in variables:
        if variable._value is None:
            variable._deferred_initialize()
