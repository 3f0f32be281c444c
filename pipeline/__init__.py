"""The training pipeline: topic cards and real text in, the checkpoints of a chatbot out."""

import os

# Before torch is loaded: its threads sleep while they wait for each other. Spinning, they made a step several
# times slower as soon as anything else ran on the cores, for a gain of a fifteenth when nothing did.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
