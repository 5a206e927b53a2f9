"""onnxruntime-genai."""

from benchmarks.references import work


class Writer:
    def __init__(self, folder: str) -> None:
        import onnxruntime_genai

        self.library = onnxruntime_genai
        self.model = onnxruntime_genai.Model(folder)

    def prefill(self, length: int) -> None:
        options = self.library.GeneratorParams(self.model)
        options.set_search_options(max_length=length + 256, min_length=length + 256)
        self.generator = self.library.Generator(self.model, options)
        self.generator.append_tokens(work.ids(1, length).astype("int32"))
        self.generator.generate_next_token()

    def decode(self, count: int) -> None:
        for _ in range(count):
            self.generator.generate_next_token()
