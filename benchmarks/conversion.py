"""tf2onnx by its parts (what `export` does) against `tf2onnx.convert.from_function`.

    python -m benchmarks.conversion

Each way converts the 135 M decoder in a process of its own; see docs/decisions/0001.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import report

WAYS = ("from_function", "by parts")


def measure(way: str) -> dict[str, Any]:
    import onnx
    import tf2onnx

    import export.onnx
    from benchmarks.sizes import build
    from export.graphs import onnx_graphs
    from export.lowering import MICROSOFT, convert_placeholder

    class Traced:
        """What `from_function` asks of a tf.function."""

        def __init__(self, concrete: Any) -> None:
            self.concrete = concrete

        def get_concrete_function(self, *_: Any) -> Any:
            return self.concrete

    def whole(concrete: Any, graph: Any, opset: int, optimizers: Any) -> Any:
        proto, _ = tf2onnx.convert.from_function(
            Traced(concrete),
            input_signature=concrete.structured_input_signature[0],
            opset=opset,
            custom_op_handlers={"PyFunc": (convert_placeholder, [])},
            extra_opset=[onnx.helper.make_opsetid(MICROSOFT, 1)],
        )
        return proto

    model = build("llama-135m")
    if way == "from_function":
        export.onnx._to_onnx = whole  # type: ignore[assignment]
    before, wall, processor = peak(), time.perf_counter(), time.process_time()
    converted = export.onnx.convert(model, onnx_graphs(model, "buffer")[0], "onnxruntime", 18)
    return {
        "way": way,
        "seconds": time.perf_counter() - wall,
        "processor seconds": time.process_time() - processor,
        "memory growth / weights": (peak() - before) / (4 * model.count_params()),
        "nodes": len(converted.proto.graph.node),
    }


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = []
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.conversion", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    report("conversion of a traced 135 M decoder", rows)


if __name__ == "__main__":
    main()
