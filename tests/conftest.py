"""Settings of all tests: the cores there are, and the same hypothesis examples in every run."""

import os

import hypothesis
import torch

torch.set_num_threads(os.cpu_count() or 1)
hypothesis.settings.register_profile("here", deadline=None, derandomize=True, max_examples=40, database=None)
hypothesis.settings.load_profile("here")
