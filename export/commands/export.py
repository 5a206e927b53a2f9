"""The command `zoo export`: one table of the forms that a model can leave in."""

import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from export.commands.sources import Source, open_source
from export.quantization.choices import BLOCK_SIZES, EMBEDDINGS, HEADS, PRECISIONS
from zoo.quiet import start_tensorflow


@dataclass(frozen=True)
class Format:
    """One form.

    Attributes:
        function: Where its function is.
        options: The command's options that mean something to it.
        settings: What the function is always given.
        bundle: It writes a bundle, which says where the model came from.
    """

    function: str
    options: frozenset[str]
    settings: tuple[tuple[str, Any], ...] = ()
    bundle: bool = False


_QUANTIZATION = {"block_size", "asymmetric", "head", "embedding", "data", "metric", "max_drop"}
_BUNDLE = frozenset(
    {"target", "precision", "name", "opset", "report", "hidden_states", *_QUANTIZATION}
)
_SAVED = frozenset({"precision", "text"})

FORMATS: dict[tuple[str, str | None], Format] = {
    ("onnx", None): Format("export.bundle:to_onnx", _BUNDLE, bundle=True),
    ("onnx", "optimum"): Format(
        "export.bundle:to_onnx",
        _BUNDLE - {"hidden_states"},
        (("layout", "optimum"),),
        bundle=True,
    ),
    ("onnx", "triton"): Format(
        "export.layouts.triton:to_triton", _BUNDLE - {"report", "name"} | {"version"}, bundle=True
    ),
    ("saved_model", None): Format("export.saved_model:to_saved_model", _SAVED),
    ("saved_model", "tf_serving"): Format(
        "export.layouts.tf_serving:to_tf_serving", _SAVED | {"version"}
    ),
    ("litert", None): Format("export.litert:to_litert", frozenset({"precision", "max_length"})),
    ("text_onnx", None): Format("export.text_onnx:to_text_onnx", frozenset({"target", "pair"})),
}


@click.command()
@click.argument("folder", metavar="RUN|CHECKPOINT", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    type=click.Choice(sorted({kind for kind, _ in FORMATS})),
    default="onnx",
    show_default=True,
    help="onnx: a bundle for serve; text_onnx: one file from strings to answers.",
)
@click.option(
    "--layout",
    type=click.Choice(sorted({layout for _, layout in FORMATS if layout})),
    help="Files as another program looks for them.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="What to make.")
@click.option(
    "--target",
    type=click.Choice(["onnxruntime", "portable"]),
    default="onnxruntime",
    show_default=True,
    help="Fused operators for ONNX Runtime, or standard operators only.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="int8-int4 reads prompts with 8 bits and writes with 4.",
)
@click.option("--block-size", type=click.Choice([str(size) for size in BLOCK_SIZES]))
@click.option("--asymmetric", is_flag=True, help="Blocks of weights have a zero point.")
@click.option("--head", type=click.Choice(HEADS), help="Of the map to the vocabulary.")
@click.option("--embedding", type=click.Choice(EMBEDDINGS), help="Of the tables.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Examples that quality is measured on; of a run, else its validation split.",
)
@click.option("--metric", help="What is measured on them; by default the task's first.")
@click.option(
    "--max-drop",
    type=float,
    help="Most that quantisation may lose: layers stay float32 until it holds, or nothing is made.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Make a page about the bundle.")
@click.option("--task", help="A checkpoint's task; by default what its files say.")
@click.option("--name", help="The bundle's name; by default the recipe's or the checkpoint's.")
@click.option("--opset", type=int, default=18, show_default=True)
@click.option(
    "--hidden-states", is_flag=True, help="Steps return their states too, for contrastive search."
)
@click.option("--version", help="A server's version of the model, a whole number.")
@click.option("--max-length", type=click.IntRange(1), help="Positions of LiteRT's cache.")
@click.option("--pair", is_flag=True, help="text_onnx takes two texts.")
@click.option(
    "--text/--no-text", default=None, help="SavedModel takes strings too; by default if it can."
)
@click.option("--verify/--no-verify", default=True, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
@click.pass_context
def export(
    context: click.Context,
    folder: Path,
    kind: str,
    layout: str | None,
    out: Path,
    task: str | None,
    verify: bool,
    overwrite: bool,
    report: Path | None,
    **options: Any,
) -> None:
    """Turn a trained RUN, or a Hugging Face CHECKPOINT, into a form that answers without Keras,
    verified against Keras.
    """
    form = FORMATS.get((kind, layout))
    if form is None:
        known = [name for to, name in FORMATS if to == kind and name]
        raise click.UsageError(
            f"--layout {layout} does not go with --to {kind} but with --to "
            f"{' or '.join(to for to, name in FORMATS if name == layout)}"
            + (
                f"; --to {kind} has {' and '.join(known)}"
                if known
                else f"; --to {kind} has no layouts"
            )
        )
    given = {
        name
        for name in (*options, "report")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    for name in sorted(given - form.options):
        raise click.UsageError(
            f"--{name.replace('_', '-')} means nothing to --to {kind}"
            + (f" --layout {layout}" if layout else "")
        )
    if report is not None and not overwrite and report.is_dir() and any(report.iterdir()):
        raise click.UsageError(f"--report {report} exists already: choose another, or --overwrite")
    start_tensorflow()
    console = Console(stderr=True)
    started = time.perf_counter()
    with console.status("loading the model") as status:
        source = open_source(folder, task)
        settings = {
            name: value
            for name, value in options.items()
            if name in form.options - _QUANTIZATION and (value is not None or name in given)
        }
        if form.bundle:
            settings |= _quantization(options, given, source)
            settings |= {"source": source.facts, "max_new_tokens": source.max_new_tokens}
            if "name" in form.options:
                settings["name"] = options["name"] or source.name
        module, _, function = form.function.partition(":")
        result = getattr(importlib.import_module(module), function)(
            source.model,
            out,
            tokenizer=source.tokenizer,
            verify=verify,
            overwrite=overwrite,
            progress=status.update,
            **settings,
            **dict(form.settings),
        )
        if report is not None:
            from export.report import write_report

            page = write_report(
                source.model, out, report, overwrite=overwrite, progress=status.update
            )
    seconds = time.perf_counter() - started
    click.echo(f"{out}: {_size(out) / 1e6:.1f} MB in {seconds:.1f} s; {_measured(result, verify)}")
    if form.bundle:
        _show_quality(result)
    text = result.get("text") if isinstance(result, dict) else None
    if text and text.get("signatures"):
        click.echo(f"takes strings: signatures {', '.join(text['signatures'])}")
    elif text and text.get("left_out"):
        click.echo(f"takes no strings: {text['left_out']}")
    if report is not None:
        click.echo(f"{page}: a page about it")


def _quantization(options: dict[str, Any], given: set[str], source: Source) -> dict[str, Any]:
    """The arguments of `to_onnx` that say how to quantise."""
    from export.quantization.budget import Budget
    from export.quantization.settings import QUANTIZED, Quantization

    precision, chosen = options["precision"], given & _QUANTIZATION
    if precision not in QUANTIZED:
        if chosen:
            name = sorted(chosen)[0].replace("_", "-")
            raise click.UsageError(
                f"--{name} goes with a quantised --precision: {', '.join(QUANTIZED)}"
            )
        return {"precision": precision}
    if "metric" in given and options["max_drop"] is None:
        raise click.UsageError("--metric goes with --max-drop, the most that it may fall")
    quantization = Quantization(
        precision,
        block_size=int(options["block_size"] or Quantization.block_size),
        symmetric=not options["asymmetric"],
        head=options["head"],
        embedding=options["embedding"],
    )
    settings: dict[str, Any] = {"precision": quantization}
    if options["max_drop"] is not None:
        settings["budget"] = Budget(options["max_drop"], options["metric"])
    if options["data"] is not None or (
        source.recipe is not None and (options["max_drop"] is not None or "static" in precision)
    ):
        from export.commands.evaluate import read_examples

        settings["data"] = read_examples(source.recipe, options["data"], "validation")
    return settings


def _size(out: Path) -> int:
    if out.is_file():
        return out.stat().st_size
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _measured(result: Any, verify: bool) -> str:
    report = result if isinstance(result, dict) else result.verification
    report = report.get("verification", report)  # of LiteRT's facts
    largest = report.get("largest", report.get("found"))
    if not verify or largest is None:
        return "verified" if verify else "not verified"
    relative = report.get("measure") == "relative"
    name = "difference from Keras as a share of the values" if relative else "largest difference"
    from_keras = "" if relative else " from Keras"
    return f"{name}{from_keras} {largest:.2g}, allowed {report['tolerance']:g}"


def _show_quality(manifest: Any) -> None:
    quality = (manifest.quantization or {}).get("quality")
    if not quality:
        return
    name, times, sizes = quality["metric"], quality["milliseconds"], quality["bytes"]
    click.echo(
        f"{name} {quality['quantized']:.4g}, in float32 {quality['float32']:.4g} "
        f"({quality['examples']} examples); {sizes['quantized'] / 1e6:.1f} MB instead of "
        f"{sizes['float32'] / 1e6:.1f}, without reference values; 8 texts one by one in "
        f"{times['quantized']:.3g} ms instead of {times['float32']:.3g}"
    )
    if quality["kept_in_float32"]:
        click.echo(f"kept in float32: {', '.join(quality['kept_in_float32'])}")
