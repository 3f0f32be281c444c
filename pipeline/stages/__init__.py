"""How a chatbot is made, one file a stage, in the order they run:

tokenizer -> base -> sft -> ranking -> reward -> rlhf, and dpo as the alternative to the last two.
"""
