"""The training pipeline: topic cards and real text in, the checkpoints of a chatbot out."""
