"""Settings that all tests share; they must stand before TensorFlow is first imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the figures in tolerances.py are a CPU's
