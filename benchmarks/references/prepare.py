"""Makes the references' forms of a checkpoint, in their own environment.

python prepare.py optimum CHECKPOINT OUT      (prints the seconds of the export itself)
python prepare.py optimum-translator CHECKPOINT OUT
python prepare.py optimum-int8 OPTIMUM OUT
python prepare.py genai-int4 CHECKPOINT OUT
"""

import runpy
import sys
import time


def optimum(checkpoint: str, out: str) -> None:
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    started = time.perf_counter()
    model = ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True)
    model.save_pretrained(out)
    print(time.perf_counter() - started)


def optimum_translator(checkpoint: str, out: str) -> None:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    ORTModelForSeq2SeqLM.from_pretrained(checkpoint, export=True).save_pretrained(out)


def optimum_int8(folder: str, out: str) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(folder)
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(save_dir=out, quantization_config=config)


def genai_int4(checkpoint: str, out: str) -> None:
    words = ["-m", checkpoint, "-o", out, "-p", "int4", "-e", "cpu"]
    sys.argv = ["builder", *words]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")


FORMS = {
    "optimum": optimum,
    "optimum-translator": optimum_translator,
    "optimum-int8": optimum_int8,
    "genai-int4": genai_int4,
}

if __name__ == "__main__":
    FORMS[sys.argv[1]](*sys.argv[2:])
