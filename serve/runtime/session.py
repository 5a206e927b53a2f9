"""Opens a graph in ONNX Runtime: the one place for providers, threads, memory and optimisation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from serve.errors import BundleError, InputError, ProviderError

if TYPE_CHECKING:
    import onnxruntime

Provider = str | tuple[str, dict[str, Any]]

SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "ROCMExecutionProvider": "onnxruntime-rocm",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "CoreMLExecutionProvider": "onnxruntime on macOS",
}
# Where a provider keeps tensors, for buffers that stay on the device between calls.
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
_SLOWER_ON_CPU = ["SkipLayerNormFusion", "BiasGeluFusion"]  # than the two operators they replace
_OTHER: np.dtype = np.dtype(object)
_DTYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class SessionOptions:
    """How a graph is run.

    Attributes:
        providers: Execution providers in order of preference, long names or short ones ("cpu",
            "cuda"), each alone or with its options. None: the CPU.
        threads: Threads inside an operator. None: the CPUs that this process may use, a
            container's quota included.
        optimization: How far ONNX Runtime rewrites the graph at loading.
        arena: Keep freed memory for the next call: faster, and the process stays at its peak size.
        spinning: Let threads wait for work actively while a graph runs: faster, but burns CPU time
            that others on the machine might need. Between runs they sleep, or those of one graph
            would slow another down for its first steps.
        prepacking: Copy weights at loading into the order that kernels like best: faster,
            at up to twice the memory.
        profile: Begin of the name of a file that ONNX Runtime writes its profile to, once
            `runtime.end_profiling()` is called.
        rewritten: A file to write the graph to as ONNX Runtime rewrote it.
    """

    providers: tuple[Provider, ...] | None = None
    threads: int | None = None
    optimization: Literal["none", "basic", "extended", "all"] = "all"
    arena: bool = True
    spinning: bool = True
    prepacking: bool = True
    profile: str | None = None
    rewritten: str | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.threads, int) and not isinstance(self.threads, bool)
        if self.threads is not None and not (whole and self.threads >= 1):
            raise InputError(f"threads={self.threads!r}: expected a whole number from 1")
        if isinstance(self.providers, str):  # a single name is a likely slip
            object.__setattr__(self, "providers", (self.providers,))


@dataclass(frozen=True)
class Tensor:
    """Name, dtype and axes of a graph's input or output; an axis is a number or a name."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]


class Session:
    """A loaded graph.

    Args:
        path: The .onnx file; its external data lies beside it.
        options: How to run it.

    Raises:
        ProviderError: A provider was asked for that this installation does not have.
        BundleError: The file cannot be loaded.
    """

    def __init__(self, path: str | Path, options: SessionOptions | None = None) -> None:
        import onnxruntime

        self.path = Path(path)
        self.options = options or SessionOptions()
        providers = resolve_providers(self.options.providers)
        try:
            self.runtime = onnxruntime.InferenceSession(
                str(self.path),
                _native_options(self.options),
                providers=providers,
                disabled_optimizers=_SLOWER_ON_CPU if _on_cpu(providers) else None,
            )
        except runtime_errors() as error:
            if not self.path.is_file():
                raise BundleError(f"no graph at {self.path}") from None
            raise BundleError(f"{self.path} cannot be loaded: {_first_line(error)}") from error
        self.runtime.disable_fallback()
        self.providers: list[str] = list(self.runtime.get_providers())
        missing = {name for name, _ in providers} - set(self.providers)
        if missing:
            raise ProviderError(
                f"{', '.join(sorted(missing))} is installed but did not start (its driver or "
                "libraries are missing); ONNX Runtime's log on standard error says which"
            )
        self.device, self.device_id = "cpu", 0
        for name, given in reversed(providers):
            if name in _DEVICES:
                self.device, self.device_id = _DEVICES[name], int(given.get("device_id", 0))
        self.inputs = _tensors(self.runtime.get_inputs())
        self.outputs = _tensors(self.runtime.get_outputs())
        self.overridable = _tensors(self.runtime.get_overridable_initializers())

    def run(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the graph once.

        Args:
            feeds: Arrays by input name. What the graph does not ask for is left out; whole numbers
                are cast to the graph's type. Overridable initializers may be fed too.
            outputs: Names of the outputs wanted; all by default.

        Raises:
            InputError: An input is missing or has the wrong shape or type.
        """
        names = list(self.outputs) if outputs is None else list(outputs)
        for name in names:
            if name not in self.outputs:
                raise InputError(
                    f"{self.path.name} has no output {name!r}, only {list(self.outputs)}"
                )
        ready = self.prepare(feeds)
        try:
            return dict(zip(names, self.runtime.run(names, ready), strict=True))
        except runtime_errors() as error:
            shapes = {name: tuple(array.shape) for name, array in ready.items()}
            raise InputError(
                f"{self.path.name} failed on inputs {shapes}: {_first_line(error)}"
            ) from error

    def prepare(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Pick, cast and check what the graph asks for."""
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise InputError(
                f"{self.path.name} needs the input {', '.join(map(repr, missing))}; "
                f"given were {sorted(feeds)}"
            )
        ready = {
            name: _cast(self.path.name, spec, feeds[name]) for name, spec in self.inputs.items()
        }
        for name, spec in self.overridable.items():
            if name in feeds:
                ready[name] = _cast(self.path.name, spec, feeds[name])
        return ready


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, which share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = [
        value
        for value in vars(state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*errors, RuntimeError)


def resolve_providers(providers: Sequence[Provider] | None) -> list[tuple[str, dict[str, Any]]]:
    """Full names and options of the providers, all of which are there.

    Raises:
        ProviderError: One is not in this installation.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    resolved: list[tuple[str, dict[str, Any]]] = []
    for provider in ("cpu",) if providers is None else providers:
        given, options = (provider, {}) if isinstance(provider, str) else provider
        name = SHORT_NAMES.get(given.lower(), given)
        if name not in available:
            package = PACKAGES.get(name)
            hint = f"; it comes with the package {package}" if package else ""
            raise ProviderError(
                f"execution provider {given!r} is not available here: this onnxruntime has "
                f"{available}{hint}"
            )
        resolved.append((name, dict(options)))
    return resolved


def _on_cpu(providers: Sequence[tuple[str, Any]]) -> bool:
    return all(name == "CPUExecutionProvider" for name, _ in providers)


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, capped by the container's quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # not Linux, or no quota
        pass
    return count


def _native_options(options: SessionOptions) -> onnxruntime.SessionOptions:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    native = onnxruntime.SessionOptions()
    native.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[options.optimization]
    if options.threads is not None:
        native.intra_op_num_threads = options.threads
    elif available_cpus() < (os.cpu_count() or 1):
        native.intra_op_num_threads = available_cpus()  # else ONNX Runtime's own choice is good
    native.inter_op_num_threads = 1
    native.log_severity_level = 3
    native.enable_cpu_mem_arena = options.arena
    native.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.spinning else "0"
    )
    native.add_session_config_entry("session.force_spinning_stop", "1")
    native.add_session_config_entry(
        "session.disable_prepacking", "0" if options.prepacking else "1"
    )
    if options.profile is not None:
        native.enable_profiling = True
        native.profile_file_prefix = options.profile
    if options.rewritten is not None:
        native.optimized_model_filepath = options.rewritten
    return native


def run_bound(session: Session, binding: onnxruntime.IOBinding, where: str) -> None:
    """Run a graph on bound memory; `where` says in an error what was being run."""
    try:
        session.runtime.run_with_iobinding(binding)
    except runtime_errors() as error:
        raise InputError(f"{session.path.name} failed on {where}: {_first_line(error)}") from error


def _tensors(nodes: Sequence[Any]) -> dict[str, Tensor]:
    return {
        node.name: Tensor(node.name, _DTYPES.get(node.type, _OTHER), tuple(node.shape or ()))
        for node in nodes
    }


def _cast(graph: str, spec: Tensor, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != spec.dtype and spec.dtype != _OTHER:
        whole, wanted_whole = array.dtype.kind in "iub", spec.dtype.kind in "iub"
        if array.size and (array.dtype.kind not in "iubf" or (wanted_whole and not whole)):
            raise InputError(
                f"{graph}: input {spec.name!r} is {array.dtype}, expected {spec.dtype}"
            )
        array = array.astype(spec.dtype)
    fits = len(array.shape) == len(spec.shape) and all(
        not isinstance(wanted, int) or wanted == size
        for wanted, size in zip(spec.shape, array.shape, strict=False)
    )
    if not fits:
        raise InputError(
            f"{graph}: input {spec.name!r} has shape {list(array.shape)}, "
            f"expected {list(spec.shape)}"
        )
    return array


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
