"""Exports opened by clients that others wrote, in an environment of their own: `make interop`.

    .venv-interop/bin/python -m tests.interop.checkpoints --out build/interop
    .venv/bin/python -m tests.interop.export --out build/interop
    .venv-interop/bin/python -m tests.interop.check --out build/interop

The first makes tiny checkpoints with transformers, the second exports them, the third has each
client load what was exported and compares its answers with those of transformers and the same
weights. A client is a module that `registry.CLIENTS` names.
"""
