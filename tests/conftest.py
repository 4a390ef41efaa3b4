"""Settings of all tests: one thread (the models are tiny) and the same hypothesis examples in every run."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("here", deadline=None, derandomize=True, max_examples=40, database=None)
hypothesis.settings.load_profile("here")
