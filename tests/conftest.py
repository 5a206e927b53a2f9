"""Settings that all tests share; they must stand before TensorFlow is first imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the figures in tolerances.py are a CPU's

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With -v: the largest differences met, to be put beside the tolerances."""
    import tolerances

    if not tolerances.MEASURED or terminalreporter.config.getoption("verbose") < 0:
        return
    terminalreporter.section("largest differences")
    for (dtype, row), gap in sorted(tolerances.MEASURED.items()):
        allowed = tolerances.TABLES[dtype][row]
        terminalreporter.line(f"{dtype:10}{row:28}{gap:10.2g}  tolerance {allowed:g}")


@pytest.fixture(scope="module", params=["buffer", "grow"])
def layout(request: pytest.FixtureRequest) -> str:
    """A layout of the cache; with `decoder` and `seq2seq` every test runs on both."""
    return request.param


@pytest.fixture(scope="module")
def decoder(layout: str, tmp_path_factory: pytest.TempPathFactory):
    """A tiny decoder, ready to generate."""
    import serve_bundles

    from serve.decoding.generator import Generator

    return Generator(serve_bundles.decoder_bundle(tmp_path_factory.mktemp(layout) / "d", layout))


@pytest.fixture(scope="module")
def seq2seq(layout: str, tmp_path_factory: pytest.TempPathFactory):
    """A tiny encoder-decoder, ready to generate."""
    import serve_bundles

    from serve.decoding.generator import Generator

    return Generator(serve_bundles.seq2seq_bundle(tmp_path_factory.mktemp(layout) / "s", layout))
